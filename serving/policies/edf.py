"""`edf`: earliest deadline first, hopeless requests last."""

from serving.policies.base import LEAST_WEIGHT, Policy, PolicyCard


def key(deadline_s: float, prefill_s: float, weight: float, kappa: float) -> float:
    """Deadline, shifted by prefill time over weight."""
    return deadline_s + kappa * prefill_s / max(weight, LEAST_WEIGHT)


class Edf(Policy):
    """Key: d + kappa*c/w. A prompt of one prefill second counts as due kappa seconds later.

    Those kappa/w, that is, for weight w: by its loss per second of engine time (see `srpt`). With
    kappa 0 weights do nothing.

    Source: Liu and Layland 1973 (kappa 0, optimal on one processor while all deadlines can
    be met); the lean towards short prompts, and demotion, from QoServe (arXiv 2503.22562),
    whose alpha in seconds per prompt token is kappa times the seconds that one takes, so
    that the same value fits any machine.

    Regime: mixed deadlines. kappa 0 up to saturation; beyond it work would go to requests
    about to miss, and 3 to 30 did better (simulated drift, at commit df82740).
    """

    name = "edf"
    demotes = True
    card = PolicyCard(
        helps="mixed deadlines: kappa 0 while all can be met, 10 and more in overload",
        hurts="sustained overload with kappa 0: work goes to requests about to miss",
    )
    default_params = {"kappa": 0.0}
    param_bounds = {"kappa": (0.0, 1000.0)}
    param_choices = {"kappa": (0.0, 3.0, 10.0, 30.0, 100.0)}
    key = staticmethod(key)

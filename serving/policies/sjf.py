"""`sjf`: shortest prefill first, aged, so that long prompts are late but not starved."""

from serving.policies.base import LEAST_WEIGHT, Policy, PolicyCard


def key(arrival_s: float, prefill_s: float, weight: float, kappa: float) -> float:
    """Aged prefill time in seconds, over weight."""
    return arrival_s + kappa * prefill_s / max(weight, LEAST_WEIGHT)


class Sjf(Policy):
    """Key: a + kappa*c/w. A prompt of one prefill second yields to those kappa seconds younger.

    Those kappa/w, that is, for weight w: its loss per second of engine time (see `srpt`).

    Source: shortest remaining prompt first, SRPF, as in QoServe (arXiv 2503.22562), and
    speculative shortest job first, SSJF (arXiv 2404.08509); here by the prefill time,
    which is known at arrival, unlike the answer's length.

    Regime: overload with mixed prompt lengths and similar deadlines. kappa 0 is first
    come, first served.
    """

    name = "sjf"
    card = PolicyCard(
        helps="overload with mixed prompt lengths and similar deadlines",
        hurts="long prompts with tight deadlines; it is blind to SLOs",
    )
    default_params = {"kappa": 20.0}
    param_bounds = {"kappa": (0.0, 1000.0)}
    key = staticmethod(key)

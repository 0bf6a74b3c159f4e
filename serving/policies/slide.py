"""`slide`: deadline order while all can be met, shortest job as load rises."""

from serving.policies.base import LEAST_WEIGHT, Policy, PolicyCard


def key(
    arrival_s: float, deadline_s: float, prefill_s: float, weight: float, load: float,
    kappa: float,
) -> float:  # fmt: skip
    """A mix of deadline and aged, weighted prefill time.

    Without a deadline the first term is infinite and the request comes last,
    except at full load where only the second term counts.
    """
    work_s = kappa * prefill_s / max(weight, LEAST_WEIGHT)
    if load >= 1.0:
        return arrival_s + work_s
    return (1.0 - load) * deadline_s + load * (arrival_s + work_s)


class Slide(Policy):
    """Key: (1-b)*d + b*(a + kappa*c/w), b the load between 0 and 1; hopeless requests last.

    Source: the boundary that ProServe (arXiv 2512.12928) slides between deadline-first
    and density-first order; its density-first side is an aged, weighted `sjf` here.

    Regime: load that changes, bursts and overload: the strong fixed choice. It gives
    long prompts up first.
    """

    name = "slide"
    demotes = True
    follows_load = True
    card = PolicyCard(
        helps="load that changes, bursts and overload; the strong fixed choice",
        hurts="overload in which long prompts are the ones that matter",
    )
    default_params = {"kappa": 20.0}
    param_bounds = {"kappa": (0.0, 1000.0)}
    key = staticmethod(key)

"""`sjf`: shortest prefill first, aged, so that long prompts are late but not starved.

After SRPF and SSJF: the prompt's prefill time is known at arrival, unlike the
answer's length.
"""

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView


class Sjf(Policy):
    """Key: a + kappa*c. A prompt of one prefill second yields to those kappa seconds younger."""

    name = "sjf"
    card = PolicyCard(
        helps="overload with mixed prompt lengths and similar deadlines",
        hurts="long prompts with tight deadlines; it is blind to SLOs",
    )
    default_params = {"kappa": 20.0}
    param_bounds = {"kappa": (0.0, 1000.0)}

    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """Aged prefill time in seconds."""
        return (view.arrival_s + context.params["kappa"] * context.prefill_s(view),)

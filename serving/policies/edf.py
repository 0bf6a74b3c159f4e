"""`edf`: earliest deadline first, hopeless requests last."""

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView


class Edf(Policy):
    """Key: d + alpha*p, with alpha in seconds per prompt token (0 is plain EDF).

    Source: Liu and Layland 1973 (optimal on one processor while all deadlines can be
    met); alpha*p, which leans towards short prompts, and demotion from QoServe (arXiv
    2503.22562).

    Regime: mixed deadlines up to saturation. Far beyond it, work goes to requests about
    to miss; a larger alpha helps.
    """

    name = "edf"
    demotes = True
    card = PolicyCard(
        helps="load up to saturation with mixed deadlines: optimal while all can be met",
        hurts="sustained overload: work goes to requests about to miss",
    )
    default_params = {"alpha": 0.0}
    param_bounds = {"alpha": (0.0, 0.01)}

    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """Deadline, shifted by prompt length."""
        return (view.deadline_s + context.params["alpha"] * view.prompt_tokens,)

"""`edf`: earliest deadline first, hopeless requests last (after QoServe, arXiv 2503.22562)."""

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView


class Edf(Policy):
    """Key: d + alpha*p, with alpha in seconds per prompt token (0 is plain EDF)."""

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

"""`srpt`: shortest predicted remaining work first, long answers counted by their risk."""

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView

_MOST_TOKENS = 1e9  # a prediction without bound still has to give a finite key


class Srpt(Policy):
    """Key: c + tau*(mean + rho*(q90 - mean)), in seconds of the request's own work.

    Source: SRPT on predicted lengths, TRAIL (arXiv 2410.01035). That the order should see
    how uncertain a length is: SageSched (arXiv 2603.07917) and Tail Inflated Expectation
    (arXiv 2604.00499), whose tail term the q90 stands in for. rho 0 is the mean, 1 the q90.

    Not aged, unlike `sjf`: it is the order of least mean completion time, and an age term
    would only make a second `sjf` of it; `max_wait_s` bounds what a long request waits.

    Regime: one class of traffic and answers that differ much and can be predicted.
    """

    name = "srpt"
    needs_lengths = True
    card = PolicyCard(
        helps="answers of very different, predictable length: least mean completion time",
        hurts="long requests, which wait up to the ceiling in overload; it is blind to SLOs",
    )
    default_params = {"rho": 0.5}
    param_bounds = {"rho": (0.0, 1.0)}

    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """Predicted seconds of work; without a q90 (0 or infinite) the mean decides alone."""
        answer = view.predicted_output_tokens
        if not 0.0 <= answer <= _MOST_TOKENS:
            answer = min(max(0.0, answer), _MOST_TOKENS)
        if answer < view.q90_output_tokens < _MOST_TOKENS:
            answer += context.params["rho"] * (view.q90_output_tokens - answer)
        return (context.prefill_s(view) + context.decode_s_per_token * answer,)

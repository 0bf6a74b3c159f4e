"""`srpt`: shortest predicted remaining work first, long answers counted by their risk."""

from serving.policies.base import LEAST_WEIGHT, Policy, PolicyCard

_MOST_TOKENS = 1e9  # a prediction without bound still has to give a finite key


def key(
    predicted_output_tokens: float, q90_output_tokens: float, weight: float, prefill_s: float,
    decode_s_per_token: float, rho: float,
) -> float:  # fmt: skip
    """Predicted seconds of work over weight; without a q90 (0, infinite) the mean decides alone."""
    answer = predicted_output_tokens
    if not answer >= 0.0:
        answer = 0.0
    elif answer > _MOST_TOKENS:
        answer = _MOST_TOKENS
    if answer < q90_output_tokens < _MOST_TOKENS:
        answer += rho * (q90_output_tokens - answer)
    return (prefill_s + decode_s_per_token * answer) / max(weight, LEAST_WEIGHT)


class Srpt(Policy):
    """Key: (c + tau*(mean + rho*(q90 - mean)))/w, in seconds of the request's own work.

    Source: weighted shortest processing time first, the least sum of w times completion time
    (Smith 1956, various optimizers for single-stage production); SRPT on predicted lengths,
    TRAIL (arXiv 2410.01035). That the order should see how uncertain a length is: SageSched
    (arXiv 2603.07917) and Tail Inflated Expectation (arXiv 2604.00499), whose tail term the q90
    stands in for. rho 0 is the mean, 1 the q90.

    Not aged, unlike `sjf`: it is an order of completion times, and an age term would
    only make a second `sjf` of it; `max_wait_s` bounds what a long request waits.

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
    key = staticmethod(key)

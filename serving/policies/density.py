"""`density`: most tokens of value per second of engine time first, hopeless requests last."""

from serving.policies.base import Policy, PolicyCard

_MOST_TOKENS = 1e9  # a prediction without bound still has to give a finite key
_LEAST_S = 1e-9


def key(
    prompt_tokens: float, predicted_output_tokens: float, weight: float, prefill_s: float,
    decode_s_per_token: float,
) -> float:  # fmt: skip
    """Negative value per second; zero when there is nothing to gain."""
    answer = predicted_output_tokens
    if not answer >= 0.0:
        answer = 0.0
    elif answer > _MOST_TOKENS:
        answer = _MOST_TOKENS
    value = weight * (prompt_tokens + 8.0 * answer)
    seconds = prefill_s + answer * decode_s_per_token
    return -value / (seconds if seconds > _LEAST_S else _LEAST_S)


class Density(Policy):
    """Key: -w*(p + 8L)/(c + L*tau), an answer token valued as eight prompt tokens.

    Source: goodput per unit of serving bandwidth in JITServe (arXiv 2504.20068); the
    factor 8 is this project's choice. The greedy rule of the knapsack problem: when not
    everything can be served in time, what pays most for its engine time goes first.

    Regime: overload with predictable answers. Below saturation it ignores deadlines
    that `edf` would meet; a request of low density waits until it is hopeless.
    """

    name = "density"
    demotes = True
    needs_lengths = True
    card = PolicyCard(
        helps="sustained overload: what gives most goodput per second of engine time goes first",
        hurts="calm load, where it misses deadlines that could be met; unpredictable answers",
    )
    key = staticmethod(key)

"""`density`: most tokens of value per second of engine time first, hopeless requests last."""

from serving.policies.base import Key, Policy, PolicyCard, PolicyContext, RequestView

_MOST_TOKENS = 1e9  # a prediction without bound still has to give a finite key
_LEAST_S = 1e-9


class Density(Policy):
    """Key: -w*(p + 8L)/(c + L*tau), an answer token valued as eight prompt tokens.

    Source: goodput per unit of serving bandwidth in JITServe (arXiv 2504.20068); the
    weight 8 is this project's choice. The greedy rule of the knapsack problem: when not
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

    def key(self, view: RequestView, context: PolicyContext) -> Key:
        """Negative value per second; zero when there is nothing to gain."""
        answer = view.predicted_output_tokens
        if not 0.0 <= answer <= _MOST_TOKENS:
            answer = min(max(0.0, answer), _MOST_TOKENS)
        value = view.weight * (view.prompt_tokens + 8.0 * answer)
        prefill_s = view.prompt_tokens * context.prefill_s_per_token
        seconds = prefill_s + answer * context.decode_s_per_token
        return (-value / (seconds if seconds > _LEAST_S else _LEAST_S),)

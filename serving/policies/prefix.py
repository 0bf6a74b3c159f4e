"""`prefix`: longest cached prefix first, aged, so that what the KV cache holds is used."""

from serving.policies.base import Policy, PolicyCard


def key(
    arrival_s: float, cached_tokens: float, prefill_s_per_token: float, kappa: float
) -> float:
    """Arrival, moved ahead by the saving."""
    return arrival_s - kappa * max(cached_tokens, 0.0) * prefill_s_per_token


class Prefix(Policy):
    """Key: a - kappa*s, s the prefill seconds that the KV cache saves this request.

    A request that saves one second passes those up to kappa seconds older; kappa 0 is
    first come, first served. Weights do nothing: what is saved is the engine's time.

    Source: cache-aware scheduling, longest prefix match (`lpm`), of SGLang (arXiv
    2312.07104). Aged here, since a popular prefix would otherwise starve all others.

    Regime: shared prompts or conversations whose KV blocks are about to be evicted.
    Without shared prefixes it is first come, first served.
    """

    name = "prefix"
    card = PolicyCard(
        helps="shared system prompts or long conversations, and a KV cache that is short",
        hurts="tight deadlines; without shared prefixes it is first come, first served",
    )
    default_params = {"kappa": 20.0}
    param_bounds = {"kappa": (0.0, 1000.0)}
    key = staticmethod(key)

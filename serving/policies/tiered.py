"""`tiered`: the strictest SLO first; best effort fills what is left."""

import math

from serving.policies.base import Policy, PolicyCard

_SHORTEST_S, _LONGEST_S = 1e-3, 1e6
_WHOLE_ANSWER, _BEST_EFFORT = 100.0, 101.0


def key(
    ttft_s: float, tpot_s: float, e2e_s: float, deadline_s: float
) -> tuple[float, float]:
    """(tier, deadline); targets are infinite where there are none."""
    if not ttft_s < math.inf:
        promised = e2e_s < math.inf or tpot_s < math.inf
        return _WHOLE_ANSWER if promised else _BEST_EFFORT, deadline_s
    target_s = ttft_s
    if target_s < _SHORTEST_S:
        target_s = _SHORTEST_S
    elif target_s > _LONGEST_S:
        target_s = _LONGEST_S
    # target_s = m * 2^exponent with 0.5 <= m < 1, which is exact where a log rounds.
    return float((math.frexp(target_s)[1] - 1) // 2), deadline_s


class Tiered(Policy):
    """Key: (tier, d), a tier being how strict the SLO is, and d the deadline.

    First requests with a TTFT target, by powers of four of it (below 0.25, 1, 4, 16 s ...),
    so that targets four times apart are never in one tier, whatever scales them; then
    those with other targets only (end to end, TPOT); then those without any. Weights do
    nothing: the targets say who comes first.

    Source: online requests before offline ones, which harvest the residual slack:
    ConServe (arXiv 2410.01228), HyGen (arXiv 2501.14808).

    Regime: interactive traffic below capacity with batch work underneath.
    """

    name = "tiered"
    card = PolicyCard(
        helps="interactive traffic that fits, with batch work to fill the rest",
        hurts="overload of the strict tiers: looser ones get nothing until the ceiling",
    )
    key = staticmethod(key)

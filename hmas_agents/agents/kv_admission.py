"""Is too much admitted? Rule agent for the KV reserve and the number of active requests."""

import math

from hmas_agents.agents.calls import RuleCall, settled
from hmas_agents.states import ShortState

RESERVE, ACTIVE = "set_kv_reserve", "set_max_active_requests"

RESERVE_UP_HOLD_S = 4.0
RESERVE_DOWN_HOLD_S = 30.0
RESERVE_STEP = 0.05
RESERVE_MAX = 0.3
RESERVE_OFF = 0.02

ACTIVE_DOWN_HOLD_S = 10.0
ACTIVE_UP_HOLD_S = 20.0
MISS_HIGH = 0.25
MISS_LOW = 0.02
FLOOR_SHARE = 0.25


def propose(state: ShortState, since_change_s: dict[str, float]) -> list[RuleCall]:
    """KV safety first, then concurrency; see `kv_reserve` and `active_requests`."""
    return kv_reserve(state, since_change_s) + active_requests(state, since_change_s)


def kv_reserve(state: ShortState, since_change_s: dict[str, float]) -> list[RuleCall]:
    """Set eta <- min(eta + 0.05, 0.3) while requests are preempted, halve it when clean.

    A preemption throws computed KV away, so it answers fast (every 4 s) and forgets
    slowly (every 30 s); below 0.02 the reserve is off again.
    """
    reserve = state.limits.kv_reserve
    if state.preemptions_per_s > 0:
        wanted = max(reserve, min(round(reserve + RESERVE_STEP, 4), RESERVE_MAX))
        hold_s = RESERVE_UP_HOLD_S
        reason = f"{state.preemptions_per_s:.2f} preemptions/s: admit less"
    else:
        wanted = round(reserve / 2, 4) if reserve / 2 >= RESERVE_OFF else 0.0
        hold_s, reason = RESERVE_DOWN_HOLD_S, "no preemptions: reserve less"
    if wanted == reserve or not settled(RESERVE, since_change_s, hold_s):
        return []
    return [{"name": RESERVE, "args": {"fraction": wanted, "reason": reason}}]


def active_requests(state: ShortState, since_change_s: dict[str, float]) -> list[RuleCall]:
    """Fewer at once when decodes alone are too slow; back up when clean.

    With m the share of finished requests that missed TPOT, R running (per rank, as the
    limit is) and A the limit:

    - m > 0.25, decodes without slack, no prefill to blame, requests waiting:
      A <- max(0.9 min(A, R), A_max / 4), at most every 10 s;
    - m < 0.02, slack not negative: A <- min(1.25 A, A_max), at most every 20 s.

    Fewer decodes per step are shorter steps but less throughput, so this comes only
    after the batching agent has nothing left to take away.
    """
    misses, slack_s = state.tpot_miss_share, state.decode_slack_p10_s
    limit, most = state.limits.max_active_requests, state.max_active_requests
    if misses is None:
        return []
    short_of_slack = slack_s is not None and slack_s < 0
    if misses > MISS_HIGH and short_of_slack and state.prefilling == 0 and state.waiting > 0:
        floor = max(1, int(most * FLOOR_SHARE))
        running = math.ceil(state.running / state.ranks)
        wanted = max(int(0.9 * min(limit, running)), min(floor, limit))
        hold_s = ACTIVE_DOWN_HOLD_S
        reason = f"TPOT misses {misses:.0%} without prefill: fewer at once"
    elif misses < MISS_LOW and not short_of_slack:
        wanted, hold_s = min(int(limit * 1.25) + 1, most), ACTIVE_UP_HOLD_S
        reason = f"TPOT misses {misses:.0%}: more at once again"
    else:
        return []
    if wanted == limit or not settled(ACTIVE, since_change_s, hold_s):
        return []
    return [{"name": ACTIVE, "args": {"max_requests": wanted, "reason": reason}}]

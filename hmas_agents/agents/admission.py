"""Is too much let in? Rule agent for concurrency, and for refusing what may be refused."""

import math

from hmas_agents.agents.calls import RuleCall
from hmas_agents.states import ShortState

ACTIVE, SHED = "set_max_active_requests", "set_shed_share"

MISS_HIGH = 0.25
MISS_LOW = 0.02
FLOOR_SHARE = 0.25

PROTECTED_LOW = 0.90
PROTECTED_HIGH = 0.98
MISSING_HIGH = 0.10
MISSING_LOW = 0.02
IN_VAIN_HIGH = 0.5
FEWEST_WAITING = 4  # sheddable ones; of fewer, a share says little
SHED_STEP = 0.25


def propose(state: ShortState) -> list[RuleCall]:
    """Concurrency, then shedding; see the two functions."""
    return active_requests(state) + shed_share(state)


def active_requests(state: ShortState) -> list[RuleCall]:
    """Fewer at once when decodes alone are too slow; back up when clean.

    With m the share of finished requests that missed TPOT, R running (per rank, as the
    limit is) and A the limit:

    - m > 0.25, decodes without slack, no prefill to blame, requests waiting:
      A <- max(0.9 min(A, R), A_max / 4);
    - m < 0.02, slack not negative: A <- min(1.25 A, A_max).

    Fewer decodes per step are shorter steps but less throughput, so this comes only
    where the batching agent has nothing to take away (AIMD, as there).
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
        reason = f"TPOT misses {misses:.0%} without prefill: fewer at once"
    elif misses < MISS_LOW and not short_of_slack:
        wanted = min(int(limit * 1.25) + 1, most)
        reason = f"TPOT misses {misses:.0%}: more at once again"
    else:
        return []
    if wanted == limit:
        return []
    return [{"name": ACTIVE, "args": {"max_requests": wanted, "reason": reason}}]


def shed_share(state: ShortState) -> list[RuleCall]:
    """Refuse sheddable requests by quarters while they wait in vain and others miss.

    With A the lowest attainment of a class that may not be refused, n the sheddable
    requests waiting, v those of them that wait in vain (past the deadline; or, without
    one, longer than `serving.shedding.OVERDUE_S`) over n and those served in time lately,
    and u the same of the other classes:

    - A < 0.90 or u > 0.1, and v > 0.5 and n >= 4: share <- min(share + 0.25, 1): who would
      be served too late, or not, is told at once and leaves queue and batch to the others;
    - A > 0.98 and u < 0.02, or nothing waits: share <- max(share - 0.25, 0).

    Between the two nothing moves (hysteresis). Which classes may be refused is the
    server's configuration; where it names none, nothing is. A refused request is a miss:
    simulated in two minutes of overload, under `fcfs` attainment of the others went from
    0.17 to 0.43 and of all from 0.20 to 0.37; under `edf`, which gives up the hopeless
    anyway, that of the others from 0.53 to 0.79 and of all from 0.55 to 0.50. After the
    overload controls that shed the lowest class first (DAGOR, arXiv 1806.04075).
    """
    if not state.sheddable:
        return []
    share, attained = state.limits.shed, protected_attainment(state)
    others, in_vain = state.in_vain_share, state.sheddable_in_vain_share
    misses = others > MISSING_HIGH or (attained is not None and attained < PROTECTED_LOW)
    clean = others < MISSING_LOW and attained is not None and attained > PROTECTED_HIGH
    if misses and in_vain > IN_VAIN_HIGH and state.sheddable_waiting >= FEWEST_WAITING:
        wanted = min(share + SHED_STEP, 1.0)
        reason = f"{in_vain:.0%} of sheddable ones wait in vain, and {others:.0%} of the others"
    elif state.waiting == 0 or clean:
        wanted, reason = max(share - SHED_STEP, 0.0), "there is room again: refuse fewer"
    else:
        return []
    if wanted == share:
        return []
    return [{"name": SHED, "args": {"share": wanted, "reason": reason}}]


def protected_attainment(state: ShortState) -> float | None:
    """The lowest attainment of a class that may not be refused; None without any yet."""
    kept = [
        attained
        for name, attained in state.attainment_by_class.items()
        if name not in state.sheddable
    ]
    return min(kept, default=None)

"""Are the steps too large for the decodes in them? Rule agent for the token budget.

The hook sizes each step by the slack of its tightest decode; this agent moves the
ceiling above it, for the case that measured TPOT misses say the steps still come
out too long.
"""

import math

from hmas_agents.agents.calls import RuleCall
from hmas_agents.states import ShortState

TOOL = "set_token_budget"
MISS_HIGH = 0.10
MISS_LOW = 0.02
FLOOR_SHARE = 0.25


def propose(state: ShortState) -> list[RuleCall]:
    """Shrink the budget by a quarter on TPOT misses, grow it back by a quarter when clean.

    With m the share of finished requests that missed TPOT, B the budget and B_max the
    envelope:

    - m > 0.10, prefill in the batch and decodes without slack:
      B <- max(0.75 B, decodes + 1, B_max / 4);
    - m < 0.02 and slack not negative: B <- min(1.25 B, B_max).

    Between 0.02 and 0.10 nothing moves (hysteresis). Without prefill in the batch a
    smaller budget could not help, so nothing moves either: multiplicative decrease
    only where it acts (after AIMD: Chiu and Jain, Computer Networks 17, 1989).
    """
    misses, slack_s = state.tpot_miss_share, state.decode_slack_p10_s
    budget = state.limits.token_budget
    if misses is None:
        return []
    short_of_slack = slack_s is not None and slack_s < 0
    if misses > MISS_HIGH and state.prefilling > 0 and short_of_slack:
        decodes = math.ceil(state.decoding / state.ranks)  # the budget is each rank's
        floor = max(decodes + 1, int(state.max_token_budget * FLOOR_SHARE))
        wanted = max(int(budget * 0.75), min(floor, budget))
        reason = f"TPOT misses {misses:.0%} and decodes behind: smaller steps"
    elif misses < MISS_LOW and not short_of_slack:
        wanted = min(int(budget * 1.25) + 1, state.max_token_budget)
        reason = f"TPOT misses {misses:.0%}: larger steps again"
    else:
        return []
    if wanted == budget:
        return []
    args = {"max_tokens": wanted, "follow_slack": state.limits.follow_slack, "reason": reason}
    return [{"name": TOOL, "args": args}]

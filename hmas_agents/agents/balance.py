"""Do long prompts hold the batch while short ones run out of time? Rule agent for chunking."""

from hmas_agents.agents.calls import RuleCall, settled
from hmas_agents.states import ShortState

TOOL = "set_long_prefill_threshold"
ON_HOLD_S = 20.0  # since it was last turned off
OFF_HOLD_S = 10.0  # since it was last turned on
MISS_HIGH = 0.05
MISS_LOW = 0.01
HOPELESS_LOW = 0.02
HOPELESS_HIGH = 0.10
SMALLEST_TOKENS = 128


def propose(state: ShortState, since_change_s: dict[str, float]) -> list[RuleCall]:
    """Let one prompt take at most half of a step while that can save waiting ones.

    With l the p10 laxity of the queue, q its prefill seconds, h the hopeless share of
    those waiting and m the share of finished requests whose first token was late:

    - on (B/2 tokens, at least 128): m > 0.05, a prefill in the batch, at least two
      waiting, h < 0.02, and 0 < l < q: all can still be saved, but not behind the
      whole queue;
    - off: m < 0.01, or nothing waits, or h > 0.1, or l <= 0.

    In overload sharing the step only makes every first token late (simulated, `slide`:
    half a step cost up to 0.4 points of attainment, an eighth of one up to 7), hence h
    and no smaller share. Between the two nothing moves (hysteresis).
    """
    misses, laxity_s = state.ttft_miss_share, state.p10_laxity_s
    threshold = state.limits.long_prefill_threshold
    saveable = laxity_s is not None and 0 < laxity_s < state.queued_prefill_s
    if (
        threshold == 0
        and misses is not None
        and misses > MISS_HIGH
        and state.prefilling > 0
        and state.waiting >= 2
        and state.hopeless_share < HOPELESS_LOW
        and saveable
    ):
        wanted, hold_s = max(SMALLEST_TOKENS, state.limits.token_budget // 2), ON_HOLD_S
        reason = f"first tokens late {misses:.0%}, laxity {laxity_s:.2f} s: share the steps"
    elif threshold > 0 and (
        state.waiting == 0
        or state.hopeless_share > HOPELESS_HIGH
        or (misses is not None and misses < MISS_LOW)
        or (laxity_s is not None and laxity_s <= 0)
    ):
        wanted, hold_s, reason = 0, OFF_HOLD_S, "long prompts no longer in the way"
    else:
        return []
    if wanted == threshold or not settled(TOOL, since_change_s, hold_s):
        return []
    return [{"name": TOOL, "args": {"max_tokens": wanted, "reason": reason}}]

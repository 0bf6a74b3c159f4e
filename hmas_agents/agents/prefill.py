"""Does prefill get its part of the steps, and each prompt its part of prefill? Rule agent.

Two calls that nothing else makes: how much of one step a single prompt may take, and how
much of the step's time prefill gets at least while a deadline is near.
"""

from hmas_agents.agents.calls import RuleCall, call_for, stepped
from hmas_agents.states import ShortState

MISS_HIGH = 0.05
MISS_LOW = 0.01
HOPELESS_LOW = 0.02
HOPELESS_HIGH = 0.10
TPOT_CLEAN = 0.02
TPOT_HIGH = 0.10


def propose(state: ShortState) -> list[RuleCall]:
    """Between prompts first, then between prefill and decode; see the two functions."""
    return long_prefill_threshold(state) + prefill_share(state)


def long_prefill_threshold(state: ShortState) -> list[RuleCall]:
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
    threshold = state.limits.long_prefill_threshold
    if threshold == 0 and _can_be_saved(state) and state.prefilling > 0 and state.waiting >= 2:
        wanted = stepped("long_prefill_threshold", 1, state)
        reason = f"first tokens late {state.ttft_miss_share:.0%}: prompts share the steps"
    elif threshold > 0 and _is_over(state):
        wanted, reason = 0, "long prompts no longer in the way"
    else:
        return []
    return [call_for("long_prefill_threshold", wanted, state, reason)]


def prefill_share(state: ShortState) -> list[RuleCall]:
    """Give prefill 35% of the step's time while deadlines are near and decodes are clean.

    With t the share of finished requests that missed TPOT, and l, q, h, m as above:

    - on: slack sizes the steps (without it there is nothing to hold up), m > 0.05,
      h < 0.02, 0 < l < q and t < 0.02;
    - off: m < 0.01, or nothing waits, or h > 0.1, or l <= 0, or t > 0.1.

    The hook acts on it only in steps with a deadline near. The rule `balance`, which was
    more than this then, gained up to 2 points around saturation on the code trace and lost
    as much in overload (simulated, at commit 5051864), hence h.
    """
    share, tpot = state.limits.prefill_share, state.tpot_miss_share
    decodes_clean = tpot is None or tpot < TPOT_CLEAN
    if share == 0 and state.limits.follow_slack and decodes_clean and _can_be_saved(state):
        wanted = stepped("prefill_share", 1, state)
        reason = f"first tokens late {state.ttft_miss_share:.0%}, decodes on time: more prefill"
    elif share > 0 and (_is_over(state) or (tpot is not None and tpot > TPOT_HIGH)):
        wanted, reason = 0.0, "prefill needs no share of its own any more"
    else:
        return []
    return [call_for("prefill_share", wanted, state, reason)]


def _can_be_saved(state: ShortState) -> bool:
    misses, laxity_s = state.ttft_miss_share, state.p10_laxity_s
    return (
        misses is not None
        and misses > MISS_HIGH
        and state.hopeless_share < HOPELESS_LOW
        and laxity_s is not None
        and 0 < laxity_s < state.queued_prefill_s
        and state.waiting > 0
    )


def _is_over(state: ShortState) -> bool:
    misses, laxity_s = state.ttft_miss_share, state.p10_laxity_s
    return (
        state.waiting == 0
        or state.hopeless_share > HOPELESS_HIGH
        or (misses is not None and misses < MISS_LOW)
        or (laxity_s is not None and laxity_s <= 0)
    )

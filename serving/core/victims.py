"""Which request does vLLM preempt when KV blocks run out? The rule `victims`.

vLLM takes the last one of the running list. So before a step that may run out of blocks, requests
that lose least come last.
"""

import math

from serving.core.decoding import blocks_of, is_short_of_blocks
from serving.core.jit import compiled_in_place
from serving.core.sorting import sort
from serving.core.state import Core

DWELL_S = 5.0  # after a preemption, a resumed request is left alone for so long
SPARED_TOKENS = 8.0  # an answer this close to its predicted end is finished first


@compiled_in_place
def loss(core: Core, row: int) -> None:
    """What is lost by preempting a request into its `ranks`: the larger, the sooner it goes.

    No request twice within `DWELL_S`; hopeless and best-effort requests first; then requests
    that are not nearly finished; then by blocks freed per token to recompute; among equals
    the request with the fewest tokens to recompute.
    """
    one, now_s, into = core.requests[row], core.engine[0].now_s, core.ranks[row]
    late = one.first_token_s == math.inf and now_s > one.deadline_s
    promised = one.ttft_s < math.inf or one.tpot_s < math.inf or one.e2e_s < math.inf
    computed = one.computed_tokens
    into[0] = now_s - one.preempted_s >= DWELL_S
    into[1] = late or not promised
    into[2] = one.expected_tokens - one.output_tokens > SPARED_TOKENS
    into[3] = blocks_of(core, computed) / max(1, computed)
    into[4] = -computed


@compiled_in_place
def order_victims(core: Core) -> None:
    """Put the next victims last in the running list, if this step may run out of blocks.

    Chunk budget still goes by the policy: only the last ones change their place, and
    those within the dwell, because a step may take more than the last ones.
    """
    engine, count = core.engine[0], core.engine[0].running
    if count < 2 or not is_short_of_blocks(core):
        return
    running, rows, ordered = core.running, core.picked[0], core.picked[1]
    for i in range(count):
        rows[i] = ordered[i] = running[i]
        loss(core, running[i])
        core.ranks[running[i], 5] = i
        core.requests[running[i]].gives_up = 0
    sort(core.ranks, ordered, count)
    others = count - max(1, count // 8)
    for i in range(others, count):
        core.requests[ordered[i]].gives_up = 1
    engine.would_be, place = rows[count - 1], 0
    for may_go in (0.0, 1.0):  # those within the dwell first
        for i in range(count):
            row = rows[i]
            if not core.requests[row].gives_up and core.ranks[row, 0] == may_go:
                running[place] = row
                place += 1
    for i in range(others, count):
        running[i] = ordered[i]
    engine.reordered = 1

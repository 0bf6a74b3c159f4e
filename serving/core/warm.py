"""What is compiled before the first step? All that Python calls in the core.

No step may wait for the compiler, so the hook calls each function once when it is built. What an
earlier start has compiled is loaded from disk.
"""

import math
from functools import cache

import numpy as np

from serving.core import batch, control, decoding, queue, tenants, triage
from serving.core.state import fill, new_core


@cache
def warm_up() -> None:
    """Compile, or load from disk, what the hook calls; the first time about a minute."""
    core = new_core(8, 2)
    engine = core.engine
    engine["lanes"], core.tenants["weight"] = 1, 1.0
    engine["token_budget"] = engine["max_active_requests"] = engine["most_active"] = 8
    for row in range(3):
        fill(
            core, row, 0.0, math.inf, math.inf, math.inf, math.inf, 9, 0, 0, 0.0, 1.0, 9.0, 9.0, 0
        )
        core.requests["whole_prompt_tokens"][row] = core.requests["max_tokens"][row] = 9
        batch.arrive(core, row, 9.0, 9.0)
    queue.enter(core, 0)
    queue.enter_first(core, 1)
    queue.pick(core)
    queue.to_look_up(core)
    queue.look_again(core, 0, 9)
    queue.waiting_rows(core)
    queue.put_back(core, queue.take(core))
    queue.started(core, queue.take(core), 8)
    queue.leave(core, 0)
    queue.place_of(core, 0, 9)
    queue.place_all_anew(core)
    queue.set_load(core, 0.0, 1e-4, 1e-4)
    queue.advance(core, 0.0)
    triage.triage(core)
    triage.forget_parked(core)
    tenants.level(core)
    tenants.count_decodes(core)
    control.begin_step(core, 0.0)
    control.plan(core)
    control.prefill_rate(core)
    control.decode_rate(core)
    batch.refresh(core, 2, 0)
    batch.admit(core, 2, 9.0)
    batch.begin_decoding(core, 2)
    batch.note_scheduled(core, np.array([2]), np.array([9]), False)
    batch.learn_step(core, 9, 0, 0, 0, 0.01, False)
    batch.note_tokens(core, 0, 0.1, np.empty(0, np.int64), np.empty(0))
    batch.preempt(core, 2, 0.2)
    batch.remove(core, 2)
    batch.leave(core, 2)
    decoding.look(core)
    decoding.peak_blocks(core)

"""What is compiled before the first step? All that Python calls in the core.

No step may wait for the compiler, so the hook calls each function once when it is built. What an
earlier start has compiled is loaded from disk.
"""

import math
from functools import cache

import numpy as np

from serving.core import batch, calls, control, decoding, queue, routing, tenants, triage
from serving.core.lengths import new_lengths
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
    arrays = new_lengths()
    at, lengths = calls.addresses(core), calls.addresses_of(arrays)
    for row in range(3):
        calls.arrive(at, row, 0.0, 0.0, 1.0, (1.0, 1.0, 1.0, 1.0), 0, 9, 0, 9, False, lengths, 0)
    calls.enter(at, 0)
    calls.enter_first(at, 1)
    calls.pick(at)
    queue.to_look_up(core)
    queue.look_again(core, 0, 9)
    queue.waiting_rows(core)
    routing.look(core, np.zeros(1, routing.HINT), 0, 0.0)
    calls.put_back(at, calls.take(at, 0)[0])
    calls.started(at, calls.take(at, 0)[0], 8)
    calls.leave_queue(at, 0)
    queue.place_of(core, 0, 9)
    queue.place_all_anew(core)
    queue.set_load(core, 0.0, 1e-4, 1e-4)
    queue.advance(core, 0.0)
    triage.triage(core)
    triage.forget_parked(core)
    tenants.level(core)
    tenants.count_decodes(core)
    calls.plan(at, 0.0, calls.NO_SHAPE, 8, 0, 0, False)
    calls.step(at, 0.0, 0, 0.0, calls.NO_SHAPE, 8, 0, 0)
    calls.busy_until_s(at, 0.0, 0.0, calls.NO_SHAPE)
    control.prefill_rate(core)
    control.decode_rate(core)
    batch.refresh(core, 2, 0)
    batch.admit(core, 2, 9.0)
    batch.begin_decoding(core, 2)
    calls.admit(at, 2, 9, 0, 0, 9, lengths, 0)
    calls.note_scheduled(at, 1, 1, np.zeros(0, np.int64), False)
    batch.note_scheduled(core, np.array([2]), np.array([9]), False)
    calls.learn_step(at, calls.NO_SHAPE, 0.01, False)
    counts, sums, bounds = np.zeros((1, 2), np.int64), np.zeros(1), np.zeros(1)
    calls.note_tokens(at, np.zeros(1, np.int64), 0.1, counts, sums, bounds)
    batch.remove(core, 2)
    calls.leave(at, 2)
    decoding.look(core)
    decoding.peak_blocks(core)

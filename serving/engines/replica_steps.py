"""Which replica gets a request, and when does each take its next step? Compiled.

Replicas are independent engines that advance together in virtual time, in the order in which their
steps end. They share the arrays of requests, and `holders`; a row of all others is one replica.

The front end is that of vLLM 0.32 with data parallelism and one API server
(`DPLBAsyncMPClient.get_core_engine_for_request`): a request goes to the replica of the lowest score

    max(in flight, waiting + running) + waiting * 6 * max(0, KV usage - 1/2)

where the front end counts by itself what is in flight (sent, and no end received), and waiting,
running and KV usage are as of the last report. An engine tells its counts at the beginning of a
step, if they have changed, and the coordinator reports them every 0.1 s; until then the front end
adds 1 to `waiting` for each request that it sends. Of equal scores the first one counts, from a
place on that moves by one with each request.

Modelled as well: what a step has ended is in flight until the step's end. Not modelled: time on the
wire, several API servers (each knows its own requests only), reports ahead of the 0.1 s after a
quiet time, and the lockstep of mixture-of-experts models.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.core.jit import compiled_in_place
from serving.core.sorting import push, sift
from serving.core.state import Core
from serving.engines.hooked_steps import let_in_hooked, take_hooked_step
from serving.engines.kv_blocks import KvBlocks
from serving.engines.notes import Notes
from serving.engines.step_state import EngineState
from serving.engines.virtual_steps import DRAINED, PAUSED, STUCK, TICK, let_in, take_step

FULL = 7  # beside the reasons of `virtual_steps`
REPORT_S = 0.1
_PRESSURE, _FREE_USAGE = 6.0, 0.5

REPLICA = np.dtype(
    [
        ("awake", "i8"),  # it has a step before it
        ("in_flight", "i8"),
        ("seen_waiting", "i8"), ("seen_running", "i8"), ("seen_usage", "f8"),  # by the front end
        ("told_waiting", "i8"), ("told_running", "i8"), ("told_usage", "f8"),  # by the engine
    ]
)  # fmt: skip
FRONT = np.dtype(
    [
        ("routed", "i8"),  # requests so far
        ("first", "i8"),  # replica to look at first
        ("reports", "i8"),  # so far, also those that nobody needed
        ("busy", "i8"),  # replicas in the calendar
        ("waiting", "i8"), ("waiting_peak", "i8"),  # on all replicas together
        ("usable_blocks", "i8"),  # of the KV cache of one replica
    ]
)  # fmt: skip


class Replicas(NamedTuple):
    """The front end, and what it knows of the replicas.

    Attributes:
        front: FRONT (1,).
        replicas: REPLICA (replicas,).
        scores: (replicas,).
        replica_of: (requests,), where each was sent; before that, where it must be sent, or -1.
        calendar: (replicas,), a heap: the one whose step ends first in front.
        ends_s: (replicas, 1), when the step of each ends, negative: the heap has the highest first.
    """

    front: NDArray[Any]
    replicas: NDArray[Any]
    scores: NDArray[np.float64]
    replica_of: NDArray[np.int32]
    calendar: NDArray[np.int64]
    ends_s: NDArray[np.float64]


class Hooks(NamedTuple):
    """The hooks of all replicas.

    Attributes:
        core: a row of `tenants`, `engine`, `cost` and `running` for each.
        notes: a row of `lengths` and `histograms` for each.
    """

    core: Core
    notes: Notes


@compiled_in_place
def run_replicas(
    fleet: Replicas, states: EngineState, hooks: Hooks | None, tick_s: float, events: int
) -> int:
    """Serve all requests; `hooks` is None for stock vLLM.

    Returns:
        DRAINED: all have left. TICK: what comes next is not before `tick_s`. PAUSED: after so many
        `events`. FULL: a queue needs more room. STUCK: the first in a queue can never be admitted.
    """
    front, arrivals = fleet.front[0], states.arrivals
    for _ in range(events):
        due_s, ends_s, reports = math.inf, math.inf, front.reports
        if front.routed < len(arrivals):
            due_s = arrivals[front.routed]
            reports = int(due_s / REPORT_S)
            if reports > front.reports:
                due_s = reports * REPORT_S
        if front.busy:
            ends_s = -fleet.ends_s[fleet.calendar[0], 0]
        if tick_s <= min(due_s, ends_s) < math.inf:
            return TICK
        if ends_s < due_s:
            _serve_next(fleet, states, hooks)
        elif reports > front.reports:
            front.reports = reports
            _report(fleet)
        elif due_s < math.inf:
            if not _send(fleet, states, hooks, due_s):
                return FULL
        else:
            why = _wake_rest(fleet, states)
            if why != PAUSED:
                return why
    return PAUSED


@compiled_in_place
def _state_of(states: EngineState, k: int) -> EngineState:
    kv = states.kv
    blocks = KvBlocks(
        kv.pool[k], kv.blocks[k], kv.holders, kv.table[k], kv.slots[k], kv.contents
    )
    return EngineState(
        states.engine[k], states.progress, states.arrivals, states.priority,
        states.held_tokens, blocks, states.running[k], states.tokens[k], states.waiting[k],
        states.preempted[k], states.ended[k], states.log, states.factors,
        states.gaps,
    )  # fmt: skip


@compiled_in_place
def _core_of(core: Core, k: int) -> Core:
    return Core(
        core.requests, core.places, core.place_links, core.dues, core.due_links, core.neighbours,
        core.tenants[k], core.engine[k], core.running[k], core.groups, core.cost[k], core.ranks,
        core.picked,
    )  # fmt: skip


@compiled_in_place
def _notes_of(notes: Notes, k: int) -> Notes:
    return Notes(
        notes.lengths[k], notes.histograms[k], notes.groups, notes.gaps_s, notes.events,
        notes.head, notes.cached, notes.was, notes.stays, notes.whose, notes.lanes,
    )  # fmt: skip


@compiled_in_place
def _waiting(states: EngineState, hooks: Hooks | None, k: int) -> int:
    if hooks is None:
        return int(states.engine[k, 0].waiting)
    return int(hooks.core.engine[k, 0].waiting)


@compiled_in_place
def _serve_next(fleet: Replicas, states: EngineState, hooks: Hooks | None) -> None:
    """The replica whose step ended first takes the next one, if it has anything to do."""
    front, k = fleet.front[0], fleet.calendar[0]
    one, engine, waiting = fleet.replicas[k], states.engine[k, 0], _waiting(states, hooks, k)
    if waiting != one.told_waiting or engine.running != one.told_running:
        one.told_waiting, one.told_running = waiting, engine.running
        one.told_usage = 1.0 - states.kv.pool[k, 0].free / front.usable_blocks
    one.in_flight = engine.arrived - engine.left
    _score(fleet, k)
    if hooks is None:
        goes_on = take_step(_state_of(states, k))
    else:
        core, notes = _core_of(hooks.core, k), _notes_of(hooks.notes, k)
        goes_on = take_hooked_step(_state_of(states, k), core, notes)
    _count_waiting(front, _waiting(states, hooks, k) - waiting)
    fleet.ends_s[k, 0] = -engine.now_s
    if not goes_on:
        one.awake = 0
        front.busy -= 1
        fleet.calendar[0] = fleet.calendar[front.busy]
    sift(fleet.ends_s, fleet.calendar, 0, front.busy)


@compiled_in_place
def _report(fleet: Replicas) -> None:
    for k in range(len(fleet.replicas)):
        one = fleet.replicas[k]
        one.seen_waiting, one.seen_running = one.told_waiting, one.told_running
        one.seen_usage = one.told_usage
        _score(fleet, k)


@compiled_in_place
def _send(fleet: Replicas, states: EngineState, hooks: Hooks | None, now_s: float) -> bool:
    """Send the next request to a replica, unless that has no room for it in its queue."""
    front = fleet.front[0]
    row = front.routed
    k = fleet.replica_of[row]
    if k < 0:
        k = _least_loaded(fleet)
    one, engine = fleet.replicas[k], states.engine[k, 0]
    if hooks is None and engine.arrived - engine.left >= states.waiting.shape[1]:
        return False
    front.routed += 1
    front.first = (front.first + 1) % len(fleet.replicas)
    fleet.replica_of[row] = k
    one.in_flight += 1
    one.seen_waiting += 1
    _score(fleet, k)
    if not one.awake:
        one.awake = 1
        engine.now_s = now_s
        _wake(fleet, k, now_s)
    waiting = _waiting(states, hooks, k)
    if hooks is None:
        let_in(_state_of(states, k), row)
    else:
        let_in_hooked(
            _state_of(states, k), _core_of(hooks.core, k), _notes_of(hooks.notes, k), row
        )
    _count_waiting(front, _waiting(states, hooks, k) - waiting)
    return True


@compiled_in_place
def _least_loaded(fleet: Replicas) -> int:
    scores, first = fleet.scores, fleet.front[0].first
    best = first
    for k in range(first + 1, len(scores)):
        if scores[k] < scores[best]:
            best = k
    for k in range(first):
        if scores[k] < scores[best]:
            best = k
    return int(best)


@compiled_in_place
def _score(fleet: Replicas, k: int) -> None:
    one = fleet.replicas[k]
    score = float(max(one.in_flight, one.seen_waiting + one.seen_running))
    pressure = max(0.0, one.seen_usage - _FREE_USAGE)
    fleet.scores[k] = score + one.seen_waiting * _PRESSURE * pressure


@compiled_in_place
def _wake(fleet: Replicas, k: int, now_s: float) -> None:
    front = fleet.front[0]
    fleet.ends_s[k, 0] = -now_s
    push(fleet.ends_s, fleet.calendar, front.busy, k)
    front.busy += 1


@compiled_in_place
def _wake_rest(fleet: Replicas, states: EngineState) -> int:
    """Nothing more comes, and no replica has a step before it: go on as `run_stock` does."""
    why = DRAINED
    for k in range(len(fleet.replicas)):
        engine = states.engine[k, 0]
        if engine.left == engine.arrived:
            continue
        if engine.preempted == 0:
            return STUCK
        engine.now_s += 1.0
        fleet.replicas[k].awake = 1
        _wake(fleet, k, engine.now_s)
        why = PAUSED
    return why


@compiled_in_place
def _count_waiting(front: Any, more: int) -> None:
    front.waiting += more
    front.waiting_peak = max(front.waiting_peak, front.waiting)

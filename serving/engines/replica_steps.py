"""When does each replica take its next step, and when does a request reach one? Compiled.

Replicas are independent engines that advance together in virtual time, in the order in which their
steps end. They share the arrays of requests, and `holders`; a row of all others is one replica.
Which replica gets a request: `replica_routers`.

Modelled as well: what a step has ended is in flight until the step's end. Not modelled: time on the
wire, several API servers (each knows its own requests only), reports ahead of time after a quiet
one, and the lockstep of mixture-of-experts models.
"""

import math
from typing import Any

from serving.core.jit import compiled_in_place
from serving.core.sorting import push, sift
from serving.engines.hooked_steps import let_in_hooked, take_hooked_step
from serving.engines.replica_routers import noted, report, route, tell_front
from serving.engines.replica_state import (
    Hooks,
    Replicas,
    core_of,
    notes_of,
    state_of,
    waiting_at,
)
from serving.engines.step_state import EngineState
from serving.engines.virtual_steps import DRAINED, PAUSED, STUCK, TICK, let_in, take_step

FULL = 7  # beside the reasons of `virtual_steps`


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
            reports = int(due_s / front.report_s)
            if reports > front.reports:
                due_s = reports * front.report_s
        if front.busy:
            ends_s = -fleet.ends_s[fleet.calendar[0], 0]
        if tick_s <= min(due_s, ends_s) < math.inf:
            return TICK
        if ends_s < due_s:
            _serve_next(fleet, states, hooks)
        elif reports > front.reports:
            front.reports = reports
            report(fleet)
        elif due_s < math.inf:
            if not _send(fleet, states, hooks, due_s):
                return FULL
        else:
            why = _wake_rest(fleet, states)
            if why != PAUSED:
                return why
    return PAUSED


@compiled_in_place
def _serve_next(fleet: Replicas, states: EngineState, hooks: Hooks | None) -> None:
    """The replica whose step ended first takes the next one, if it has anything to do."""
    front, k = fleet.front[0], fleet.calendar[0]
    one, engine, waiting = fleet.replicas[k], states.engine[k, 0], waiting_at(states, hooks, k)
    tell_front(fleet, states, hooks, k, waiting)
    if hooks is None:
        goes_on = take_step(state_of(states, k))
    else:
        core, notes = core_of(hooks.core, k), notes_of(hooks.notes, k)
        goes_on = take_hooked_step(state_of(states, k), core, notes)
    _count_waiting(front, waiting_at(states, hooks, k) - waiting)
    fleet.ends_s[k, 0] = -engine.now_s
    if not goes_on:
        one.awake = 0
        front.busy -= 1
        fleet.calendar[0] = fleet.calendar[front.busy]
    sift(fleet.ends_s, fleet.calendar, 0, front.busy)


@compiled_in_place
def _send(fleet: Replicas, states: EngineState, hooks: Hooks | None, now_s: float) -> bool:
    """Send the next request to a replica, unless that has no room for it in its queue."""
    front = fleet.front[0]
    row = front.routed
    k = fleet.replica_of[row]
    if k < 0:
        k = route(fleet, states, hooks, row, now_s)
    one, engine = fleet.replicas[k], states.engine[k, 0]
    if hooks is None and engine.arrived - engine.left >= states.waiting.shape[1]:
        return False
    front.routed += 1
    front.first = (front.first + 1) % len(fleet.replicas)
    fleet.replica_of[row] = k
    noted(fleet, states, hooks, row, k, now_s)
    if not one.awake:
        one.awake = 1
        engine.now_s = now_s
        _wake(fleet, k, now_s)
    waiting = waiting_at(states, hooks, k)
    if hooks is None:
        let_in(state_of(states, k), row)
    else:
        let_in_hooked(
            state_of(states, k), core_of(hooks.core, k), notes_of(hooks.notes, k), row
        )
    _count_waiting(front, waiting_at(states, hooks, k) - waiting)
    return True


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

"""Which replica gets a request? Four routers, as others have them and our own. Compiled.

- `least-loaded`, that of vLLM 0.32 with data parallelism and one API server
  (`DPLBAsyncMPClient.get_core_engine_for_request`): the replica of the lowest score

      max(in flight, waiting + running) + waiting * 6 * max(0, KV usage - 1/2)

  The front end counts by itself what is in flight (sent, and no end received); waiting, running and
  KV usage are as of the last report. An engine tells its counts at the beginning of a step, if they
  have changed, and the coordinator reports them every 0.1 s; until then the front end adds 1 to
  `waiting` for each request that it sends. Of equal scores the first one counts, from a place on
  that moves by one with each request.
- `power-of-two`, Ray Serve's default (`PowerOfTwoChoicesRequestRouter`): of two replicas drawn at
  random the one with fewer requests in flight.
- `prefix`, that of Ray Serve LLM (`PrefixCacheAffinityRouter` of Ray 2.60, with its defaults): the
  replicas that were sent the longest beginning of this prompt, if it is a tenth of it, else those
  that were sent the least text; of these the one with the fewest in flight. Where requests in
  flight differ by more than `imbalance` (Ray's default: never), as `power-of-two`. Here blocks
  stand for characters.
- `deadline`, ours: of the replicas that give the first token in time the one with the least to do
  for it (`serving.core.routing`), by what each says at every report. What was sent to a replica
  before counts as cached there.
"""

import math

from serving.core import routing
from serving.core.jit import compiled_in_place
from serving.core.state import NONE
from serving.engines.hooked_steps import tell
from serving.engines.replica_state import Hooks, Replicas, core_of, state_of
from serving.engines.step_state import EngineState

ROUTERS = ("least-loaded", "power-of-two", "prefix", "deadline")
LEAST_LOADED, POWER_OF_TWO, PREFIX, DEADLINE = range(4)
REPORT_S = 0.1
_PRESSURE, _FREE_USAGE = 6.0, 0.5
_MATCHES = 0.1  # of a prompt


@compiled_in_place
def route(
    fleet: Replicas, states: EngineState, hooks: Hooks | None, row: int, now_s: float
) -> int:
    """The replica that a request is sent to."""
    router = fleet.front[0].router
    if router == POWER_OF_TWO:
        return _of_two(fleet, row)
    if router == PREFIX:
        return _best_match(fleet, states, row)
    if hooks is not None and router == DEADLINE:
        one = hooks.core.requests[row]
        prompt = states.progress[row].prompt
        for k in range(len(fleet.hints)):
            fleet.tokens[k] = prompt - _matched(fleet, states, row, k)
        target_s = min(one.ttft_s, one.e2e_s)
        return routing.choose(fleet.hints, fleet.tokens, target_s, now_s, fleet.front[0].first)
    return _least_loaded(fleet)


@compiled_in_place
def noted(
    fleet: Replicas, states: EngineState, hooks: Hooks | None, row: int, k: int, now_s: float
) -> None:
    """A request was sent to a replica."""
    one, router = fleet.replicas[k], fleet.front[0].router
    one.in_flight += 1
    one.seen_waiting += 1
    _score(fleet, k)
    if hooks is not None and router == DEADLINE:
        request = hooks.core.requests[row]
        tokens = states.progress[row].prompt - _matched(fleet, states, row, k)
        target_s = min(request.ttft_s, request.e2e_s)
        routing.sent(fleet.hints, k, tokens, target_s, now_s)
        routing.sent(fleet.told, k, tokens, target_s, now_s)  # the next report is of before
    if router in (PREFIX, DEADLINE):
        _remember(fleet, states, row, k)


@compiled_in_place
def tell_front(
    fleet: Replicas, states: EngineState, hooks: Hooks | None, k: int, waiting: int
) -> None:
    """A replica begins a step: what its front end hears of it."""
    front, one, engine = fleet.front[0], fleet.replicas[k], states.engine[k, 0]
    if waiting != one.told_waiting or engine.running != one.told_running:
        one.told_waiting, one.told_running = waiting, engine.running
        one.told_usage = 1.0 - states.kv.pool[k, 0].free / front.usable_blocks
    one.in_flight = engine.arrived - engine.left
    _score(fleet, k)
    if hooks is not None and front.router == DEADLINE and one.told_report != front.reports:
        one.told_report = front.reports
        core = core_of(hooks.core, k)
        tell(state_of(states, k), core)
        routing.look(core, fleet.told, k, engine.now_s)


@compiled_in_place
def report(fleet: Replicas) -> None:
    """The front end hears what the replicas have told."""
    for k in range(len(fleet.replicas)):
        one = fleet.replicas[k]
        one.seen_waiting, one.seen_running = one.told_waiting, one.told_running
        one.seen_usage = one.told_usage
        _score(fleet, k)
        if fleet.front[0].router == DEADLINE:
            fleet.hints[k] = fleet.told[k]


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
def _of_two(fleet: Replicas, row: int) -> int:
    replicas, draws = fleet.replicas, fleet.draws[row]
    if len(replicas) == 1:
        return 0
    one = int(draws[0] * len(replicas))
    other = (one + 1 + int(draws[1] * (len(replicas) - 1))) % len(replicas)
    return one if replicas[one].in_flight <= replicas[other].in_flight else other


@compiled_in_place
def _best_match(fleet: Replicas, states: EngineState, row: int) -> int:
    matched, replicas, best = fleet.tokens, fleet.replicas, NONE
    most, least_busy, busiest = 0.0, replicas[0].in_flight, replicas[0].in_flight
    for k in range(len(matched)):
        matched[k] = _matched(fleet, states, row, k)
        most = max(most, matched[k])
        least_busy = min(least_busy, replicas[k].in_flight)
        busiest = max(busiest, replicas[k].in_flight)
    if busiest - least_busy > fleet.front[0].imbalance:
        return _of_two(fleet, row)
    if most < _MATCHES * states.progress[row].prompt:
        most = -math.inf
        for k in range(len(matched)):
            matched[k] = -replicas[k].prefix_blocks
            most = max(most, matched[k])
    for k in range(len(matched)):
        if matched[k] == most and (
            best == NONE or replicas[k].in_flight < replicas[best].in_flight
        ):
            best = k
    return best


@compiled_in_place
def _matched(fleet: Replicas, states: EngineState, row: int, k: int) -> int:
    """Tokens of a prompt's beginning that a replica was sent before."""
    kv, size = states.kv, states.kv.pool[k, 0].block_size
    names, was_sent = kv.contents.names[row], fleet.was_sent[k]
    most = min(names.shared, (states.progress[row].prompt - 1) // size)
    found = 0
    while found < most and was_sent[kv.contents.shared[names.first + found]]:
        found += 1
    return int(found * size)


@compiled_in_place
def _remember(fleet: Replicas, states: EngineState, row: int, k: int) -> None:
    kv, one = states.kv, fleet.replicas[k]
    names, was_sent = kv.contents.names[row], fleet.was_sent[k]
    for i in range(names.shared):
        content = kv.contents.shared[names.first + i]
        one.prefix_blocks += not was_sent[content]
        was_sent[content] = 1
    full = states.progress[row].prompt // kv.pool[k, 0].block_size
    one.prefix_blocks += max(0, full - names.shared)

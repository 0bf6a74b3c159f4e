"""What do several replicas of an engine do with one stream of requests? In virtual time, compiled.

One replica does exactly what `CompiledEngine` does. How requests are divided among more, and what
each way to do it is: `replica_routers`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO
from serving.core.routing import HINT
from serving.core.state import new_core
from serving.engines.gaps import promise
from serving.engines.kv_blocks import KvBlocks
from serving.engines.notes import Notes
from serving.engines.offered import Workload
from serving.engines.profile import EngineProfile
from serving.engines.replica_routers import DEADLINE, POWER_OF_TWO, PREFIX, REPORT_S, ROUTERS
from serving.engines.replica_state import FRONT, REPLICA, Hooks, Replicas
from serving.engines.replica_steps import FULL, run_replicas
from serving.engines.served import Served
from serving.engines.step_state import EngineState, new_state
from serving.engines.virtual_hook import know_requests
from serving.engines.virtual_steps import DRAINED, STUCK, TICK

_SLICE_EVENTS = 50_000  # some 100 ms: then progress is told, and Ctrl-C is heard
_ROOM = 1024  # in the queue of each replica, at first


@dataclass(frozen=True, slots=True)
class Routing:
    """How requests are divided.

    Attributes:
        router: one of ROUTERS.
        report_s: from one report of the replicas to the next.
        imbalance: of requests in flight, beyond which `prefix` looks at these alone.
        seed: of what is left to chance.
    """

    router: str = ROUTERS[0]
    report_s: float = REPORT_S
    imbalance: float = math.inf
    seed: int = 0


BY_LOAD = Routing()


@dataclass(frozen=True, slots=True)
class ReplicasServed:
    """What became of the requests.

    Attributes:
        served: a row for each request.
        replica_of: where each was sent, shape (requests,).
        waiting_peak: most requests that waited at once, on all replicas together.
    """

    served: Served
    replica_of: NDArray[np.int32]
    waiting_peak: int


def serve_on_replicas(
    profile: EngineProfile,
    workload: Workload,
    replicas: int,
    hook: Hooks | None = None,
    slos: Sequence[SLO] = (),
    on_progress: Callable[[int], None] | None = None,
    routing: Routing = BY_LOAD,
) -> ReplicasServed:
    """Serve a workload to its end.

    Args:
        profile: the machine that each replica is.
        workload: from second 0 on; nothing has begun elsewhere.
        replicas: how many.
        hook: each replica starts with a copy of it: what `VirtualHook` has in `core`, and returns
            from `begin`, which was told of the workload's senders. None is stock vLLM.
        slos: of the workload's senders; their targets for gaps between tokens are what counts.
        on_progress: told the number of requests that have left now and then.
        routing: who gets a request.

    Raises:
        ValueError: the router asks the hooks, and there are none.
        RuntimeError: a request that needs more KV blocks than there are would wait for ever.
    """
    running = RunningReplicas(profile, workload, replicas, hook, slos, routing=routing)
    running.serve(on_progress=on_progress)
    return running.result()


class RunningReplicas:
    """Replicas that serve a workload, one stretch of time after the other.

    Args:
        profile: as in `serve_on_replicas`.
        workload: as there.
        replicas: as there.
        hook: as there.
        slos: as there.
        sent_to: the replica of each request, whatever the load, shape (requests,); -1, and
            None for all of them, leaves it to the front end.
        routing: as there.

    Raises:
        ValueError: as there.

    Attributes:
        fleet: the front end.
        states: of the engines.
        hooks: theirs; None of stock vLLM.
    """

    def __init__(
        self, profile: EngineProfile, workload: Workload, replicas: int, hook: Hooks | None,
        slos: Sequence[SLO] = (), sent_to: NDArray[np.int32] | None = None,
        routing: Routing = BY_LOAD,
    ) -> None:  # fmt: skip
        self._profile, self._workload = profile, workload
        self.states = _states(profile, workload, replicas, _ROOM if hook is None else 1)
        if slos:
            promise(self.states.gaps, slos, workload.sender)
        self.hooks = None if hook is None else _hooks(hook, replicas, workload)
        where = np.full(len(workload), -1, np.int32) if sent_to is None else sent_to.copy()
        if hook is None and routing.router == ROUTERS[DEADLINE]:
            raise ValueError(f"router {routing.router} asks the hook, and stock vLLM has none")
        self.fleet = _front_end(self.states, where, routing)
        self.fleet.front["usable_blocks"] = max(1, profile.kv_blocks - 1)

    def serve(
        self, until_s: float = math.inf, on_progress: Callable[[int], None] | None = None
    ) -> bool:
        """Go on until what comes next is not before `until_s`; whether all requests have left.

        Raises:
            RuntimeError: a request that needs more KV blocks than there are would wait for ever.
        """
        why = -1
        while why not in (DRAINED, TICK):
            why = run_replicas(self.fleet, self.states, self.hooks, until_s, _SLICE_EVENTS)
            if why == STUCK:
                raise RuntimeError(
                    f"a request needs more than the {self._profile.kv_blocks - 1} KV blocks of a "
                    "replica: it would wait for ever. Take a profile with more kv_blocks"
                )
            if why == FULL:
                self.states = _with_room(self.states)
            if on_progress is not None:
                on_progress(int(self.states.engine["left"].sum()))
        return why == DRAINED

    def hold(self, k: int, until_s: float) -> None:
        """A replica stops: its next step begins then, and what was sent to it waits in it."""
        fleet, busy = self.fleet, int(self.fleet.front["busy"][0])
        if fleet.replicas["awake"][k]:
            self.states.engine["now_s"][k] = until_s
            fleet.ends_s[k] = -until_s
            calendar = fleet.calendar[:busy]
            calendar[:] = calendar[np.argsort(-fleet.ends_s[calendar, 0], kind="stable")]

    def result(self) -> ReplicasServed:
        """What has become of the requests by now."""
        requests = None if self.hooks is None else self.hooks.core.requests
        served = Served.of(self.states, self._workload, requests)
        peak = int(self.fleet.front["waiting_peak"][0])
        return ReplicasServed(served, self.fleet.replica_of, peak)


def _front_end(states: EngineState, where: NDArray[np.int32], routing: Routing) -> Replicas:
    replicas, router = len(states.engine), ROUTERS.index(routing.router)
    remembers = router in (PREFIX, DEADLINE)
    contents = int(states.kv.contents.shared.max()) + 1 if remembers else 1
    draws = np.random.default_rng(routing.seed).random((len(where), 2))
    front = np.zeros(1, FRONT)
    front["router"], front["report_s"] = router, routing.report_s
    front["imbalance"] = routing.imbalance
    return Replicas(
        front, np.zeros(replicas, REPLICA), np.zeros(replicas), where,
        np.zeros(replicas, np.int64), np.zeros((replicas, 1)), np.zeros(replicas, HINT),
        np.zeros(replicas, HINT), np.zeros(replicas),
        np.zeros((replicas if remembers else 1, contents), np.uint8),
        draws if router in (POWER_OF_TWO, PREFIX) else np.zeros((1, 2)),
    )  # fmt: skip


def _each(array: NDArray[Any], replicas: int) -> NDArray[Any]:
    return np.repeat(array[np.newaxis], replicas, axis=0)


def _states(
    profile: EngineProfile, workload: Workload, replicas: int, room: int
) -> EngineState:
    one = new_state(profile, workload)
    names = ("engine", "running", "tokens", "preempted", "ended")
    own: dict[str, Any] = {name: _each(getattr(one, name), replicas) for name in names}
    blocks, table, slots = (
        _each(array, replicas) for array in (one.kv.blocks, one.kv.table, one.kv.slots)
    )
    pool, holders = _pools(one.kv, replicas)
    kv = KvBlocks(pool, blocks, holders, table, slots, one.kv.contents)
    return one._replace(
        kv=kv, waiting=np.zeros((replicas, room), np.int32), **own
    )  # fmt: skip


def _pools(kv: KvBlocks, replicas: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """A pool for each, and the holders that they have in common."""
    pools, shared, behind = _each(kv.pool, replicas), kv.contents.shared.max(), len(kv.holders)
    # The first pool has the numbers as they are, the next ones have theirs behind all of these.
    pools["shared_from"][1:, 0] = behind + int(shared) * np.arange(replicas - 1)
    count = behind + int(shared) * (replicas - 1) + 1
    if count >= 2**31:
        raise ValueError(
            f"{count} different KV blocks on {replicas} replicas: at most {2**31 - 1} can be "
            "numbered; take fewer requests or replicas"
        )
    return pools, np.zeros(count, np.int32)


def _with_room(states: EngineState) -> EngineState:
    """The same with room for twice as many in each queue."""
    old, room = states.waiting, states.waiting.shape[1]
    new = np.zeros((len(old), 2 * room), np.int32)
    places = (states.engine["waiting_first"] + np.arange(room)) & (room - 1)
    new[:, :room] = np.take_along_axis(old, places, axis=1)
    states.engine["waiting_first"] = 0
    return states._replace(waiting=new)


def _hooks(hook: Hooks, replicas: int, workload: Workload) -> Hooks:
    known, notes, count = hook.core, hook.notes, len(workload)
    core = new_core(count, 1)._replace(
        requests=known.requests[workload.sender],
        groups=known.groups, running=np.zeros((replicas, len(notes.was)), np.int64),
        **{name: _each(getattr(known, name), replicas) for name in ("tenants", "engine", "cost")},
    )  # fmt: skip
    know_requests(core.requests, workload)
    own = {name: _each(getattr(notes, name), replicas) for name in ("lengths", "histograms")}
    return Hooks(
        core,
        Notes(
            **own, groups=notes.groups, gaps_s=notes.gaps_s, was=notes.was, stays=notes.stays,
            events=np.zeros(3 * count + 1, np.int64), head=np.zeros(1, np.int64),
            cached=np.zeros(count, np.int64), whose=notes.whose, lanes=notes.lanes,
        ),
    )  # fmt: skip

"""What is known of replicas that serve one stream of requests, and of their front end? Arrays."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.core.jit import compiled_in_place
from serving.core.state import Core
from serving.engines.kv_blocks import KvBlocks
from serving.engines.notes import Notes
from serving.engines.step_state import EngineState

REPLICA = np.dtype(
    [
        ("awake", "i8"),  # it has a step before it
        ("in_flight", "i8"),
        ("seen_waiting", "i8"), ("seen_running", "i8"), ("seen_usage", "f8"),  # by the front end
        ("told_waiting", "i8"), ("told_running", "i8"), ("told_usage", "f8"),  # by the engine
        ("told_report", "i8"),  # the report for which it has looked at what it owes
        ("prefix_blocks", "i8"),  # different ones that it was sent
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
        ("router", "i8"),  # a place of ROUTERS
        ("report_s", "f8"),  # from one report to the next
        ("imbalance", "f8"),  # of requests in flight, beyond which `prefix` looks at these alone
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
        told, hints: HINT (replicas,), what each owes by what it said last, and as the front end
            has it.
        tokens: (replicas,), of the prompt to be routed that each would have to compute.
        was_sent: (replicas, shared contents + 1), whether it was sent a prompt with this block.
        draws: (requests, 2), chance in [0, 1), for routers that leave something to it.

    What the router does not ask for has one element.
    """

    front: NDArray[Any]
    replicas: NDArray[Any]
    scores: NDArray[np.float64]
    replica_of: NDArray[np.int32]
    calendar: NDArray[np.int64]
    ends_s: NDArray[np.float64]
    told: NDArray[Any]
    hints: NDArray[Any]
    tokens: NDArray[np.float64]
    was_sent: NDArray[np.uint8]
    draws: NDArray[np.float64]


class Hooks(NamedTuple):
    """The hooks of all replicas.

    Attributes:
        core: a row of `tenants`, `engine`, `cost` and `running` for each.
        notes: a row of `lengths` and `histograms` for each.
    """

    core: Core
    notes: Notes


@compiled_in_place
def state_of(states: EngineState, k: int) -> EngineState:
    """One engine, as if it were alone."""
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
def core_of(core: Core, k: int) -> Core:
    """The core of one hook."""
    return Core(
        core.requests, core.places, core.place_links, core.dues, core.due_links, core.neighbours,
        core.tenants[k], core.engine[k], core.running[k], core.groups, core.cost[k], core.ranks,
        core.picked,
    )  # fmt: skip


@compiled_in_place
def notes_of(notes: Notes, k: int) -> Notes:
    """The notes of one hook."""
    return Notes(
        notes.lengths[k], notes.histograms[k], notes.groups, notes.gaps_s, notes.events,
        notes.head, notes.cached, notes.was, notes.stays, notes.whose, notes.lanes,
    )  # fmt: skip


@compiled_in_place
def waiting_at(states: EngineState, hooks: Hooks | None, k: int) -> int:
    """Requests in the queue of one engine."""
    if hooks is None:
        return int(states.engine[k, 0].waiting)
    return int(hooks.core.engine[k, 0].waiting)

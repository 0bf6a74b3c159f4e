"""How does Python call the core at every step? Functions that take the arrays' addresses.

To hand over a tuple of a dozen arrays costs more than most functions do (1.2 microseconds, and
three times that where the processor's caches are cold); one array of their addresses costs a tenth.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from serving.core import batch, control, queue
from serving.core.cost import COST, step_seconds
from serving.core.jit import compiled
from serving.core.lengths import HISTOGRAM, LENGTHS, predicted
from serving.core.state import ENGINE, NONE, REQUEST, TENANT, Core

Shape = tuple[int, int, int, int]  # of a step: prefill tokens, decodes, their context, square
NO_SHAPE: Shape = (0, 0, 0, 0)
# Whether the running list is in another order, how many requests the step leaves out, its token
# budget and threshold, how many may run, and who is first in the queue.
Plan = tuple[bool, int, int, int, int, int]
NO_PLAN: Plan = (False, 0, 0, 0, 0, NONE)


def addresses(core: Core) -> np.ndarray:
    """Where the arrays are and how long, shape (13, 2). They hold as long as somebody has `core`.

    Whoever puts another array into the core has to ask anew.
    """
    return addresses_of(core._replace(picked=core.picked[0]))


def addresses_of(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Where arrays are and how long, shape (arrays, 2), for as long as somebody has them."""
    return np.array([(one.ctypes.data, len(one)) for one in arrays])


@intrinsic  # type: ignore[untyped-decorator]
def _pointer(_context: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(address), build


@compiled
def core_at(at: np.ndarray) -> Core:
    """The core whose `addresses` these are."""
    return Core(
        carray(_pointer(at[0, 0]), (at[0, 1],), REQUEST),
        carray(_pointer(at[1, 0]), (at[1, 1], 4), np.float64),
        carray(_pointer(at[2, 0]), (at[2, 1], 3), np.int64),
        carray(_pointer(at[3, 0]), (at[3, 1], 2), np.float64),
        carray(_pointer(at[4, 0]), (at[4, 1], 3), np.int64),
        carray(_pointer(at[5, 0]), (at[5, 1], 2), np.int32),
        carray(_pointer(at[6, 0]), (at[6, 1],), TENANT),
        carray(_pointer(at[7, 0]), (at[7, 1],), ENGINE),
        carray(_pointer(at[8, 0]), (at[8, 1],), np.int64),
        carray(_pointer(at[9, 0]), (at[9, 1], 2), np.float64),
        carray(_pointer(at[10, 0]), (at[10, 1],), COST),
        carray(_pointer(at[11, 0]), (at[11, 1], 4), np.float64),
        carray(_pointer(at[12, 0]), (2, at[12, 1]), np.int64),
    )


@compiled
def lengths_at(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The length model whose `addresses_of` these are, shape (2, 2)."""
    return (
        carray(_pointer(at[0, 0]), (at[0, 1],), LENGTHS),
        carray(_pointer(at[1, 0]), (at[1, 1],), HISTOGRAM),
    )


# -- the waiting queue; `True` where a key was no number, and the queue has to fall back ------


@compiled
def enter(at: np.ndarray, row: int) -> bool:
    """As `queue.enter`."""
    core = core_at(at)
    queue.enter(core, row)
    return bool(core.engine[0].broken)


@compiled
def enter_first(at: np.ndarray, row: int) -> bool:
    """As `queue.enter_first`."""
    core = core_at(at)
    queue.enter_first(core, row)
    return bool(core.engine[0].broken)


@compiled
def put_back(at: np.ndarray, row: int) -> bool:
    """As `queue.put_back`."""
    core = core_at(at)
    queue.put_back(core, row)
    return bool(core.engine[0].broken)


@compiled
def pick(at: np.ndarray) -> int:
    """As `queue.pick`."""
    return queue.pick(core_at(at))


@compiled
def take(at: np.ndarray, taken: int) -> tuple[int, int]:
    """As `queue.take`, after so many in this step; also, what its tenant was charged."""
    core = core_at(at)
    core.engine[0].taken = taken
    row = queue.take(core)
    return row, core.requests[row].charged if row != NONE else 0


@compiled
def started(at: np.ndarray, row: int, tokens: int) -> None:
    """As `queue.started`."""
    queue.started(core_at(at), row, tokens)


@compiled
def leave_queue(at: np.ndarray, row: int) -> None:
    """As `queue.leave`."""
    queue.leave(core_at(at), row)


# -- before a step ---------------------------------------------------------------------------


@compiled
def busy_until_s(at: np.ndarray, now_s: float, began_s: float, shape: Shape) -> float:
    """When a step of this shape will probably end, which began at `began_s`; at least `now_s`."""
    took_s = step_seconds(core_at(at).cost, shape[0], shape[1], shape[2], shape[3])
    return max(now_s, began_s + took_s)


@compiled
def plan(
    at: np.ndarray, began_s: float, in_flight: Shape, free_blocks: int, silent: int,
    ready_elsewhere: int, head_can_start: bool,
) -> Plan:  # fmt: skip
    """As `control.plan`, with what vLLM says of itself; the step in flight has to end before."""
    core = core_at(at)
    engine = core.engine[0]
    took_s = step_seconds(core.cost, in_flight[0], in_flight[1], in_flight[2], in_flight[3])
    engine.start_s = max(engine.now_s, began_s + took_s)
    engine.free_blocks, engine.silent, engine.ready_elsewhere = free_blocks, silent, ready_elsewhere
    engine.head_can_start = head_can_start
    control.plan(core)
    hidden = engine.yielding + engine.resting
    return (
        bool(engine.reordered), hidden, engine.budget, engine.threshold, engine.max_active,
        queue.pick(core),
    )  # fmt: skip


@compiled
def step(
    at: np.ndarray, now_s: float, count: int, began_s: float, in_flight: Shape, free_blocks: int,
    silent: int, ready_elsewhere: int,
) -> tuple[bool, int, bool, bool, Plan]:  # fmt: skip
    """`control.begin_step`, and `plan` too, unless somebody has to be asked between the two.

    `count` run, and where it is NONE nothing is planned.

    Returns:
        whether a key was no number, how many run as far as we know, whether it matters if the
        waiting head can start, whether the step is planned (if not, `plan` is to be called), and
        how.
    """
    core = core_at(at)
    control.begin_step(core, now_s)
    engine, asks_head = core.engine[0], False
    engine.silent = silent
    if control.has_room_for_head(core) and not engine.yielded_last:
        for i in range(engine.running):
            asks_head = asks_head or control.is_partial(core, core.running[i])
    if engine.broken or engine.running != count or asks_head:
        return bool(engine.broken), engine.running, asks_head, False, NO_PLAN
    planned = plan(at, began_s, in_flight, free_blocks, silent, ready_elsewhere, False)
    return False, count, False, True, planned


# -- after it --------------------------------------------------------------------------------


@compiled
def admit(
    at: np.ndarray, row: int, prompt_tokens: int, output_tokens: int, computed_tokens: int,
    tokens: int, lengths: np.ndarray, group: int,
) -> bool:  # fmt: skip
    """As `batch.admit`, of a request that had computed so much before; whether it ran not yet.

    How many tokens it computes in this step is kept for `note_scheduled`, beside its place in the
    batch. `lengths` are the addresses of the length model.
    """
    core = core_at(at)
    one = core.requests[row]
    is_new = not one.active
    one.whole_prompt_tokens, one.output_tokens = prompt_tokens, output_tokens
    one.computed_tokens = computed_tokens
    model, histograms = lengths_at(lengths)
    batch.admit(core, row, predicted(model, histograms, group)[0])
    core.picked[1, core.engine[0].running - 1] = tokens
    return is_new


@compiled
def note_scheduled(
    at: np.ndarray, count: int, begun: int, tokens: np.ndarray, pipelined: bool
) -> tuple[bool, Shape, bool]:
    """As `batch.note_scheduled`, if the step computes all that run and are not hidden.

    Args:
        at: addresses of the core, with those that the step admits already in `running`.
        count: requests in the step.
        begun: so many of them, the last ones, have just come by `admit`.
        tokens: of each, shape (count,); or none, where all but the last compute one token.
        pipelined: whether several steps are in flight.

    Returns:
        whether that is so (nothing is noted else), the step's shape, and whether it leaves prompt
        over.
    """
    core = core_at(at)
    rows, shares, found = core.picked[0], core.picked[1], 0
    for i in range(core.engine[0].running):
        if not core.requests[core.running[i]].hidden:
            rows[found] = core.running[i]
            found += 1
    if found != count:
        return False, NO_SHAPE, False
    if len(tokens):
        shares[:count] = tokens
    else:  # those that have begun move up by as many as are hidden
        shares[: count - begun] = 1
        for i in range(count - begun, count):
            shares[i] = shares[i + core.engine[0].running - count]
    prefill_tokens, decodes, context, square, full = batch.note_scheduled(
        core, rows[:count], shares[:count], pipelined
    )
    return True, (prefill_tokens, decodes, context, square), full


@compiled
def learn_step(at: np.ndarray, shape: Shape, seconds: float, full: bool) -> None:
    """As `batch.learn_step`."""
    batch.learn_step(core_at(at), shape[0], shape[1], shape[2], shape[3], seconds, full)


@compiled
def note_tokens(
    at: np.ndarray, produced: np.ndarray, now_s: float, counts: np.ndarray, sums: np.ndarray,
    bounds: np.ndarray,
) -> bool:  # fmt: skip
    """As `batch.note_tokens`, with the gaps counted in their histograms.

    False, and nothing is noted, where others run than the core has seen.

    Args:
        at: addresses of the core.
        produced: output tokens of the running requests, shape (n,).
        now_s: when the step ended.
        counts: of gaps per histogram and bucket, shape (histograms, buckets).
        sums: of gaps per histogram, in seconds.
        bounds: upper ones of the buckets, in seconds, shape (buckets - 1,).
    """
    core, count = core_at(at), len(produced)
    if core.engine[0].running != count:
        return False
    for i in range(count):
        core.requests[core.running[i]].output_tokens = produced[i]
    groups, gaps_s = np.empty(count, np.int64), np.empty(count)
    for i in range(batch.note_tokens(core, count, now_s, groups, gaps_s)):
        bucket = 0
        while bucket < len(bounds) and bounds[bucket] < gaps_s[i]:
            bucket += 1
        counts[groups[i], bucket] += 1
        sums[groups[i]] += gaps_s[i]
    return True


# -- of one request --------------------------------------------------------------------------


@compiled
def arrive(
    at: np.ndarray, row: int, arrival_s: float, priority: float, weight: float,
    targets_s: tuple[float, float, float, float], lane: int, prompt_tokens: int, cached_tokens: int,
    max_tokens: int, lora: bool, lengths: np.ndarray, group: int,
) -> tuple[float, float, float]:  # fmt: skip
    """As `batch.arrive`, of a request with these targets (TTFT, TPOT, end to end, ITL).

    The length of its answer is predicted from `core.lengths`, whose addresses `lengths` are.

    Returns:
        its deadline, the predicted length of its answer, and the 90th percentile of that.
    """
    core = core_at(at)
    one = core.requests[row]
    one.arrival_s, one.priority, one.weight, one.tenant = arrival_s, priority, weight, lane
    one.ttft_s, one.tpot_s, one.e2e_s, one.itl_s = targets_s
    one.whole_prompt_tokens, one.cached_tokens = prompt_tokens, cached_tokens
    one.max_tokens, one.lora = max_tokens, lora
    model, histograms = lengths_at(lengths)
    mean_tokens, q90_tokens = predicted(model, histograms, group)
    batch.arrive(core, row, mean_tokens, q90_tokens)
    return one.deadline_s, one.expected_tokens, one.q90_output_tokens


@compiled
def leave(at: np.ndarray, row: int) -> tuple[float, float, int, tuple[float, float, float]]:
    """As `batch.leave`; when its first and last token came, late gaps, `deprioritised_s`."""
    core = core_at(at)
    batch.leave(core, row)
    one = core.requests[row]
    behind = one.deprioritised_s
    return one.first_token_s, one.last_token_s, one.late_gaps, (behind[0], behind[1], behind[2])

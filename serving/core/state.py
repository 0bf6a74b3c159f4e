"""What does the core know? Requests, tenants and the engine's own figures, in arrays.

A row of `requests` is one request, a row of `tenants` one tenant's lane, and `engine` has one row.
The hook fills rows as vLLM's requests come; the compiled engine fills them from a trace.
"""

import math
from typing import NamedTuple

import numpy as np

from serving.contracts.rules import COUNTERS
from serving.core.cost import new_cost
from serving.core.jit import compiled_in_place

NONE = -1  # no row
DEFAULT_COST = (0.01, 1e-4, 1e-4, 0.0, 0.0)

_FLOAT, _INT, _FLAG = np.float64, np.int64, np.int64

# Fields that are read together lie together, in lines of the processor's cache, of 64 bytes each: a
# step goes through the first one of all that run, triage through the second of all that wait, and a
# switch through the next one, too. The number of lines is odd: the first lines of all rows then
# share the whole cache, and not half of it.
REQUEST = np.dtype([
    # Its progress.
    ("whole_prompt_tokens", _INT), ("computed_tokens", _INT), ("output_tokens", _INT),
    ("start_tokens", _INT),  # known at its last admission: it decodes beyond these
    ("seen_tokens", _INT),  # of its answer, when it was looked at last
    ("active", _FLAG),  # it runs
    ("prefilling", _FLAG),  # admitted, and no token came since
    ("hidden", _FLAG),  # left out of the coming step
    # Its place in the queue, and what policies see. A target that is not promised is infinite.
    ("arrival_s", _FLOAT), ("deadline_s", _FLOAT),
    ("prompt_tokens", _INT),  # prompt tokens (after a preemption: all) not in the KV cache
    ("conforms_s", _FLOAT),  # when its tenant's bucket covers it
    ("tenant", np.int32),  # row of its lane
    ("facts", np.int8), ("standing", np.int8), ("resumed", np.int8),
    ("listed", np.int8),  # where triage may park it
    ("weight", _FLOAT),  # what it counts for, by the contract
    ("behind", _INT), ("before", _INT),  # its neighbours in the order of queueing
    ("max_tokens", _INT), ("group", _INT),  # of its answer; its histogram of lengths
    ("cached_tokens", _INT), ("attained_tokens", _INT),
    ("priority", _FLOAT), ("queued", _FLAG),
    ("predicted_output_tokens", _FLOAT), ("q90_output_tokens", _FLOAT),
    ("deprioritised_s", _FLOAT, (3,)),  # since when it stands behind others; NaN: it never did
    # What taking it has changed, should it come back unstarted in the same step.
    ("charged", _INT), ("lowered", _FLOAT),
    ("admitted", _FLAG), ("epoch", _INT), ("policy", _INT),  # in force then; -1 elsewhere
    # Its tokens.
    ("tpot_s", _FLOAT), ("ttft_s", _FLOAT), ("e2e_s", _FLOAT),
    ("first_token_s", _FLOAT), ("last_token_s", _FLOAT),  # of its answer; infinite without one
    ("expected_tokens", _FLOAT),  # predicted length of the whole answer
    ("tokens_per_step", _FLOAT),  # that it gets when it decodes; more than 1 where vLLM speculates
    ("histogram", _INT),  # of latencies
    # How it stands before the coming step.
    ("decoding", _FLAG), ("slack_s", _FLOAT), ("remaining", _FLOAT), ("held_tokens", _FLOAT),
    ("each_s", _FLOAT), ("pace_s", _FLOAT), ("pace_step_s", _FLOAT),
    ("floor", _FLAG), ("ceiling", _FLAG),  # what taking it has counted
    ("lora", np.int8), ("sheddable", np.int8), ("keeps_pace", np.int8),
    ("itl_s", _FLOAT), ("late_gaps", _INT),  # between its tokens: longer than that
    ("spare", _INT, (4,)),
], align=True)  # fmt: skip
_LINE_BYTES = 64

TENANT = np.dtype([
    ("weight", _FLOAT), ("floor", _FLOAT),  # the tenant's own, whatever its requests weigh
    ("waiting", _INT), ("inside", _INT), ("running", _INT), ("decoding", _INT),
    ("silent", _INT),  # its decodes that the last step gave no token
    ("work", _FLOAT),  # weighted work so far, in tokens; lifted when a backlog begins
    ("owed", _FLOAT),  # work that its floor promises and that was not done yet, in tokens
    ("ahead_s", _FLOAT),  # until when its bucket is used up
    ("first", _INT),  # its waiting request to serve first
    ("entered", _INT),  # number of its last arrival; 0: nobody's lane
], align=True)  # fmt: skip

# One field per policy parameter of any policy, so that keys find them by name.
PARAMETERS = ("kappa", "quantum_s", "levels", "rho")

ENGINE = np.dtype([
    ("now_s", _FLOAT),
    # The decision.
    ("epoch", _INT), ("shed", _FLOAT), ("shed_owed", _FLOAT),  # refusals due, below one
    ("policy", _INT), *((name, _FLOAT) for name in PARAMETERS),
    ("demotes", _FLAG), ("shares", _FLAG), ("follows_load", _FLAG), ("needs_lengths", _FLAG),
    ("starvation_free", _FLAG), ("buckets", _FLAG), ("triage", _FLAG),
    ("max_wait_s", _FLOAT), ("bucket_s", _FLOAT), ("most_owed", _FLOAT),
    # What things cost now, and as keys and standings have it.
    ("prefill_s_per_token", _FLOAT), ("decode_s_per_token", _FLOAT), ("load", _FLOAT),
    ("judged_rate", _FLOAT), ("broken", _FLAG),
    # The queue.
    ("waiting", _INT), ("backlog_tokens", _INT), ("front", _INT), ("back", _INT),
    ("turn", _INT), ("looked_up", _INT),  # whose cached prefix is looked up next, and the last head
    ("last", _FLOAT), ("first", _FLOAT),  # numbers of order
    ("taken", _INT), ("first_then", _FLOAT), ("turn_then", _INT),  # in this step, and before it
    ("owed", _FLAG),  # whether the last pick was owed to a floor
    ("due", _INT),  # the request to which something happens next
    ("virtual", _FLOAT),  # the least work of a backlogged lane, when it was last served
    ("lanes", _INT), ("arrivals", _INT),  # rows of `tenants` in use; requests that came in so far
    ("triage_due_s", _FLOAT),
    ("earliest", _INT), ("latest", _INT),  # ends of the list of requests that triage may park
    ("last_seen", _INT),  # up to there that list is by deadline
    # The limits in force, by their names in `Limits`.
    ("max_active_requests", _INT), ("token_budget", _INT), ("long_prefill_threshold", _INT),
    ("follow_slack", _FLAG), ("max_partial_prefills", _INT), ("prefill_by_key", _FLAG),
    ("prefill_share", _FLOAT), ("pace_decodes", _FLAG), ("is_stock", _FLAG),
    # The machine, and what vLLM says of itself before the step.
    ("most_active", _INT), ("most_tokens", _INT), ("kv_blocks", _INT), ("prefix_caching", _FLAG),
    ("drafts", _INT), ("aligned_block", _INT),
    ("free_blocks", _INT), ("used_blocks", _INT), ("ready_elsewhere", _INT), ("silent", _INT),
    ("head_can_start", _FLAG), ("start_s", _FLOAT),  # when the coming step begins
    # The batch.
    ("running", _INT), ("turns", _FLOAT), ("tokens_per_decode", _FLOAT),
    ("gains", _INT), ("turned", _INT),  # steps that each of the two counts for
    ("partial", _INT),  # of the running ones, the last so many are prompts that have begun
    ("paced_steps", _INT), ("resting", _INT), ("yielding", _INT), ("passes", _FLAG),
    ("yielded_last", _FLAG), ("in_front", _INT), ("begins_at", _INT), ("saved_tokens", _INT),
    # What was measured.
    ("least_itl_s", _FLOAT),  # of all requests so far: no shorter gap is late
    ("slide_due_s", _FLOAT), ("mean_ttft_target_s", _FLOAT), ("last_step_s", _FLOAT),
    ("steps", _INT), ("full_s", _FLOAT), ("full_tokens", _FLOAT),  # of steps full of prompts
    ("decode_shape", _FLOAT, (2,)),  # decodes and their context in the last step of these alone
    # The plan of the coming step.
    ("budget", _INT), ("threshold", _INT), ("max_active", _INT), ("reordered", _FLAG),
    *((name, _INT) for name in COUNTERS),
], align=True)  # fmt: skip

STANDING, KEY, KEY_2, ORDER = 0, 1, 2, 3  # columns of `places`
CHILD, NEXT, BACK = 0, 1, 2  # columns of links
EARLIER, LATER = 0, 1  # columns of `neighbours`


class Core(NamedTuple):
    """The arrays. Functions of the core take them as one argument.

    Attributes:
        requests: REQUEST, shape (rows,).
        places: standing, two keys and number of order of waiting requests, shape (rows, 4).
        place_links: heaps of waiting requests, one per lane, by place; shape (rows, 3).
        dues: when something happens to a waiting request, and its row; shape (rows, 2).
        due_links: the heap of waiting requests by `dues`, shape (rows, 3).
        neighbours: by due, of those that are `listed`; shape (rows, 2).
        tenants: TENANT, shape (lanes,).
        engine: ENGINE, shape (1,).
        running: rows of the running requests in vLLM's order, shape (rows,).
        groups: tokens per KV block, and most blocks of one request, of each group; shape (n, 2).
        cost: COST, shape (1,).
        ranks, picked: room to sort rows in, shapes (2 * rows, 4) and (2, rows).
    """

    requests: np.ndarray
    places: np.ndarray
    place_links: np.ndarray
    dues: np.ndarray
    due_links: np.ndarray
    neighbours: np.ndarray
    tenants: np.ndarray
    engine: np.ndarray
    running: np.ndarray
    groups: np.ndarray
    cost: np.ndarray
    ranks: np.ndarray
    picked: np.ndarray


def new_core(rows: int, lanes: int) -> Core:
    """Room for so many requests at a time, and so many tenants; nothing is inside."""
    core = Core(
        _in_lines(rows), np.zeros((rows, 4)), np.full((rows, 3), NONE), np.zeros((rows, 2)),
        np.full((rows, 3), NONE), np.zeros((rows, 2), np.int32), np.zeros(lanes, TENANT),
        np.zeros(1, ENGINE), np.zeros(rows, np.int64), np.array([[16.0, math.inf]]),
        new_cost(DEFAULT_COST), np.zeros((2 * rows, 4)), np.zeros((2, rows), np.int64),
    )  # fmt: skip
    engine = core.engine
    for name in ("front", "back", "turn", "looked_up", "due", "earliest", "latest", "last_seen"):
        engine[name] = NONE
    engine["now_s"], engine["triage_due_s"] = -math.inf, -math.inf
    for name in ("max_wait_s", "most_owed", "least_itl_s"):
        engine[name] = math.inf
    engine["starvation_free"], engine["is_stock"] = 1, 1
    engine["turns"] = engine["tokens_per_decode"] = engine["full_tokens"] = 1.0
    engine["mean_ttft_target_s"], engine["turned"] = 2.0, 4
    engine["decode_shape"] = 8, 8_000
    engine["in_front"] = NONE
    core.tenants["first"] = NONE
    return core


def _in_lines(rows: int) -> np.ndarray:
    """REQUEST, shape (rows,), each of which begins a line of the processor's cache."""
    room = np.zeros(rows * REQUEST.itemsize + _LINE_BYTES, np.uint8)
    begin = -room.ctypes.data % _LINE_BYTES
    return room[begin : begin + rows * REQUEST.itemsize].view(REQUEST)


def with_rows(core: Core, rows: int) -> Core:
    """The same core with room for more requests; the arrays of old are not used any more."""
    keeps = ("tenants", "engine", "groups", "cost")
    new = new_core(rows, 1)._replace(**{name: getattr(core, name) for name in keeps})
    by_row = ("requests", "places", "place_links", "dues", "due_links", "neighbours", "running")
    for name in by_row:
        old = getattr(core, name)
        getattr(new, name)[: len(old)] = old
    return new


def with_lanes(core: Core, lanes: int) -> Core:
    """The same core with room for more tenants."""
    tenants = np.zeros(lanes, TENANT)
    tenants["first"] = NONE
    tenants[: len(core.tenants)] = core.tenants
    return core._replace(tenants=tenants)


def nobody() -> np.ndarray:
    """A row of `requests` of which nothing is known, shape ()."""
    one, targets = np.zeros((), REQUEST), ("ttft_s", "tpot_s", "e2e_s", "itl_s")
    for name in (*targets, "deadline_s", "first_token_s", "last_token_s"):
        one[name] = math.inf
    one["deprioritised_s"] = math.nan
    one["expected_tokens"] = math.inf
    return one


@compiled_in_place
def fill(
    core: Core, row: int, arrival_s: float, deadline_s: float, ttft_s: float, tpot_s: float,
    e2e_s: float, prompt_tokens: int, cached_tokens: int, attained_tokens: int, priority: float,
    weight: float, predicted_output_tokens: float, q90_output_tokens: float, tenant: int,
) -> None:  # fmt: skip
    """Note what policies see of a request, wherever it stands."""
    one = core.requests[row]
    one.arrival_s, one.deadline_s = arrival_s, deadline_s
    one.ttft_s, one.tpot_s, one.e2e_s = ttft_s, tpot_s, e2e_s
    one.prompt_tokens, one.cached_tokens = prompt_tokens, cached_tokens
    one.attained_tokens, one.priority, one.weight = attained_tokens, priority, weight
    one.predicted_output_tokens, one.q90_output_tokens = predicted_output_tokens, q90_output_tokens
    one.tenant = tenant

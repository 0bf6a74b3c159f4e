"""What crosses a process boundary, and in what shape?

Every message between engine, controller and evals is here, and nothing else is shared. Plain
frozen dataclasses, cheap inside vLLM; `encode`/`decode` turn them into JSON-ready dictionaries and
back, with checks. Times are seconds on the engine's clock (Unix time when live), lengths tokens.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

Finish = Literal["stop", "length", "aborted", "error", "rejected", "unfinished"]
Miss = Literal["", "ttft_queue", "ttft_execution", "tpot", "e2e", "not_served"]
Deprioritised = Literal["over_share", "parked", "demoted"]

STRICT = ConfigDict(extra="forbid")


class ContractError(ValueError):
    """A message that does not fit its contract; says which key and why."""


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency targets of one request in milliseconds; None means no target."""

    __pydantic_config__ = STRICT
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    def scaled(self, factor: float) -> "SLO":
        """The same targets `factor` times as long (small hardware: factor > 1)."""
        return SLO(*(None if v is None else v * factor for v in dataclasses.astuple(self)))


@dataclass(frozen=True, slots=True)
class CostCoefficients:
    """Step time in seconds = base + per_prefill*P + per_decode*D + per_context*C + per_square*Q.

    P prefill tokens, D decoding requests, C sum of decode contexts (tokens),
    Q sum over prefill chunks of chunk*context (tokens^2).
    """

    __pydantic_config__ = STRICT
    base_s: float
    per_prefill_token_s: float
    per_decode_s: float
    per_context_token_s: float = 0.0
    per_square_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What may change while the engine runs; by default no rule acts.

    Attributes:
        max_active_requests: requests that may run at once.
        token_budget: most tokens one step may schedule.
        long_prefill_threshold: most tokens of one prompt per step; 0 is off.
        kv_reserve: KV guard: fraction of KV blocks that predicted peaks must leave free.
        follow_slack: size each step by the slack of its tightest decode.
        demote_hopeless: serve who can no longer meet its SLO last; None: as the policy says.
        prefill_share: balance: least share of step time for prefill while a deadline is near.
        prefill_by_key: serial: a waiting request of lower key goes before prefills begun.
        max_partial_prefills: serial: with so many begun, only who goes before them may; 0: off.
        triage: while not all can meet their deadlines, serve those dearest to save last.
        tenant_buckets: serve what a tenant sends beyond its share last, while others wait.
        choose_victims: preempt by least loss instead of the latest admitted.
        pace_decodes: leave decodes that are not due yet out of steps too long for the tightest.
        shed: share (0..1) of requests of sheddable classes that the API server refuses.
    """

    __pydantic_config__ = STRICT
    max_active_requests: int
    token_budget: int
    long_prefill_threshold: int = 0
    kv_reserve: float = 0.0
    follow_slack: bool = False
    demote_hopeless: bool | None = None
    prefill_share: float = 0.0
    prefill_by_key: bool = False
    max_partial_prefills: int = 0
    tenant_buckets: bool = False
    triage: bool = False
    choose_victims: bool = False
    pace_decodes: bool = False
    shed: float = 0.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was fixed at start-up; limits are clamped to it, `sheddable` classes may be refused."""

    max_active_requests: int
    token_budget: int
    max_model_len: int
    kv_blocks: int
    block_size: int
    sheddable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole desired state of an engine's scheduler, leased for `ttl_s` seconds."""

    __pydantic_config__ = STRICT
    controller_id: str
    epoch: int
    ttl_s: float
    policy: str
    params: dict[str, float]
    limits: Limits
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """The engine's answer to a decision, a renewal or a release."""

    accepted: bool
    epoch: int
    reason: str = ""
    clamped: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueState:
    """The waiting queue. Laxity is deadline - now - predicted prefill time.

    `sheddable`: waiting ones that may be shed; hopeless ones are past saving or long overdue.
    """

    waiting: int = 0
    waiting_tokens: int = 0
    queued_prefill_s: float = 0.0
    oldest_wait_s: float = 0.0
    min_laxity_s: float | None = None
    p10_laxity_s: float | None = None
    hopeless: int = 0
    sheddable: int = 0
    sheddable_hopeless: int = 0


@dataclass(frozen=True, slots=True)
class BatchState:
    """The running batch and the steps so far."""

    running: int = 0
    decoding: int = 0
    prefilling: int = 0
    decode_slack_p10_s: float | None = None
    steps: int = 0
    last_step_s: float = 0.0
    step_time_bias: float = 0.0
    last_token_budget: int = 0


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """What the short-horizon rules and the guarantees did since start.

    Attributes:
        slack_bound_steps: steps whose budget the decodes' slack has lowered.
        kv_held_steps, partial_held_steps: that admitted nobody, for KV blocks or prefills begun.
        demoted: requests found hopeless and served last from then on.
        share_raised_steps: steps that gave prefill more than slack allowed.
        yielded_prefills: times a prefill begun let a waiting request of lower key pass.
        over_share: requests that came in beyond their tenant's share.
        parked: times a request was put off because not all could be saved.
        chosen_victims: preempted requests that were not the latest admitted.
        rested_decodes: times a decode sat out a step.
        floor_served, ceiling_served: admissions owed to a tenant's floor, to `max_wait_s`.
    """

    slack_bound_steps: int = 0
    kv_held_steps: int = 0
    demoted: int = 0
    share_raised_steps: int = 0
    yielded_prefills: int = 0
    partial_held_steps: int = 0
    over_share: int = 0
    parked: int = 0
    chosen_victims: int = 0
    rested_decodes: int = 0
    floor_served: int = 0
    ceiling_served: int = 0


@dataclass(frozen=True, slots=True)
class KVState:
    """KV cache blocks: capacity, use, and the predicted peak of the running batch."""

    total_blocks: int = 0
    used_blocks: int = 0
    predicted_peak_blocks: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TenantCounters:
    """Totals since start for one tenant and SLO class; offered = received + rejected.

    received = finished + aborted + still inside; met counts finished ones only.
    """

    tenant: str
    slo_class: str
    received: int = 0
    finished: int = 0
    aborted: int = 0
    met: int = 0
    output_tokens: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One engine core (data-parallel rank) between two steps, or the sum over all `ranks`."""

    now_s: float
    rank: int
    vllm_version: str
    epoch: int
    policy: str
    params: dict[str, float]
    limits: Limits
    envelope: Envelope
    controller_id: str
    lease_left_s: float
    queue: QueueState
    batch: BatchState
    kv: KVState
    cost: CostCoefficients
    length_coverage: float | None
    counters: tuple[TenantCounters, ...]
    journal_head: int
    policy_errors: int = 0
    last_error: str = ""
    rules: RuleCounts = RuleCounts()
    ranks: "tuple[Snapshot, ...]" = ()


@dataclass(frozen=True, slots=True)
class Totals:
    """What /metrics follows of one engine core; unlike a snapshot it costs no look at the queue."""

    rank: int
    epoch: int
    policy: str
    lease_left_s: float
    policy_errors: int
    waiting: int
    running: int
    counters: tuple[TenantCounters, ...]
    rules: RuleCounts = RuleCounts()
    shed: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as the engine saw it come in."""

    seq: int
    request_id: str
    arrival_s: float
    tenant: str
    slo_class: str
    slo: SLO
    prompt_tokens: int
    max_tokens: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request as it left. `epoch` and `policy` were in force when it was admitted.

    `deprioritised`: why it stood behind others, and since how long after its arrival (seconds).
    """

    seq: int
    request_id: str
    arrival_s: float
    finished_s: float
    tenant: str
    slo_class: str
    slo: SLO
    prompt_tokens: int
    output_tokens: int
    queue_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float
    met: bool
    miss: Miss
    finish: Finish
    policy: str
    epoch: int
    preemptions: int = 0
    deprioritised: tuple[tuple[Deprioritised, float], ...] = ()


@dataclass(frozen=True, slots=True)
class JournalPage:
    """Events after a cursor. `lost` counts events overwritten before they were read."""

    cursor: int
    lost: int
    arrivals: tuple[Arrival, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class ResidentRequest:
    """A request that the engine holds between two steps; one not `running` waits (again).

    `computed_tokens` of prompt and answer have their KV in the cache.
    """

    request_id: str
    arrival_s: float
    tenant: str
    slo_class: str
    slo: SLO
    prompt_tokens: int
    max_tokens: int
    priority: int = 0
    running: bool = False
    computed_tokens: int = 0
    output_tokens: int = 0
    admitted_s: float | None = None
    first_token_s: float | None = None
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class ResidentPage:
    """The requests inside one engine core, running ones first; `left_out` did not fit.

    `prefill_s_per_token`: as measured while prompts fill the steps; 0 is unknown.
    """

    now_s: float
    requests: tuple[ResidentRequest, ...] = ()
    left_out: int = 0
    prefill_s_per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a workload: what is offered, and how long its answer truly is.

    `prefix` names shared 512-token prompt blocks (Mooncake's hash_ids); empty means unique.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = "default"
    slo_class: str = "batch"
    priority: int = 0
    prefix: tuple[int, ...] = ()
    max_tokens: int | None = None


T = TypeVar("T")


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def encode(message: Any) -> dict[str, Any]:
    """A JSON-ready dictionary of a message on this page."""
    kind: Any = type(message)
    encoded: dict[str, Any] = _adapter(kind).dump_python(message, warnings=False)
    return encoded


def decode(cls: type[T], data: object) -> T:
    """Build a `cls` from decoded JSON.

    Raises:
        ContractError: names the first offending key, its value and what was expected.
    """
    kind: Any = cls
    try:
        message: T = _adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or cls.__name__
        what = f"{cls.__name__}.{key}: {first['msg']} (got {first['input']!r})"
        raise ContractError(what) from error
    return message

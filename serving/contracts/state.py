"""What does an engine say of itself?"""

from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.contracts.codec import STRICT
from serving.contracts.decisions import Envelope, Stopped, TenantPart
from serving.contracts.limits import Limits

Tokens = TypeVar("Tokens", float, NDArray[np.float64])


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

    def request_s(
        self, prompt: Tokens, cached: Tokens, output: Tokens, batch: float
    ) -> tuple[Tokens, Tokens]:  # fmt: skip
        """Seconds of a full engine that a request's prompt and its answer take.

        The step's cost summed over the prefill and the `output` steps of decode:
        (p - c)*per_prefill + (p^2 - c^2)/2*per_square, of whose prompt c tokens are in the KV
        cache, and o*(base/B + per_decode + (p + o/2)*per_context).

        Args:
            prompt: tokens, of one request or of many; `cached` and `output` alike.
            cached: tokens of the prompt.
            output: tokens.
            batch: B, requests that share the base of a step; see `full_batch`.
        """
        square = (prompt * prompt - cached * cached) / 2
        prefill_s = (prompt - cached) * self.per_prefill_token_s + square * self.per_square_s
        context = prompt + output / 2
        decode_s = self.base_s / batch + self.per_decode_s + context * self.per_context_token_s
        return prefill_s, output * decode_s


def full_batch(max_active_requests: int, kv_tokens: int, tokens: float) -> float:
    """Requests in the batch of a full engine, of whose KV cache each takes so many tokens.

    The batch seen *now* would price a lone request with whole steps, and call every engine that is
    not idle saturated.
    """
    return max(1.0, min(max_active_requests, kv_tokens / max(1.0, tokens)))


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

    received = finished + aborted + still inside. Of the aborted ones some met their targets so
    far, and the `withdrawn` neither met nor missed them: the share that met is
    met / (finished + aborted + rejected - withdrawn). Prompt tokens are those of admitted
    requests; the KV cache held the cached ones of them.
    """

    tenant: str
    slo_class: str
    received: int = 0
    finished: int = 0
    aborted: int = 0
    met: int = 0
    output_tokens: int = 0
    rejected: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    withdrawn: int = 0

    @property
    def judged(self) -> int:
        """Requests that met their targets or missed them."""
        return self.finished + self.aborted + self.rejected - self.withdrawn


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """A tenant's requests now: `waiting` in the queue, among those `inside` the engine."""

    tenant: str
    waiting: int
    inside: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One engine core (data-parallel rank) between two steps, or the sum over all `ranks`.

    `rules`: what rules and guarantees did since start; `rules.COUNTERS` says what counts.
    `started_s`: when the process started, on its clock; 0 in virtual time. Of a fleet, each of the
    `ranks` has the name of its `replica`, and `away` says of each that did not answer why.
    """

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
    rules: dict[str, int] = field(default_factory=dict)
    ranks: "tuple[Snapshot, ...]" = ()
    stopped: Stopped | None = None
    contract_epoch: int = 0
    started_s: float = 0.0
    replica: str = ""
    away: dict[str, str] = field(default_factory=dict)
    loads: tuple[TenantLoad, ...] = ()


@dataclass(frozen=True, slots=True)
class HistogramCounts:
    """One measure of a tenant's requests of one SLO class since start.

    `counts` are per bucket of `serving.perception.latencies.BOUNDS`, the last one above all
    bounds; `total` is the sum of the values, in the measure's unit.
    """

    measure: str
    tenant: str
    slo_class: str
    counts: tuple[int, ...]
    total: float


# How soon something is due, in a RoutingHint.
WITHIN_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


@dataclass(frozen=True, slots=True)
class RoutingHint:
    """What a router should know of one engine core: what it owes, and what a prompt costs.

    Attributes:
        prefill_due_s: seconds of prefill that come before a request which is due within each of
            WITHIN_S and, in the last place, before one that is never due.
        prefill_s_per_token: of a prompt, while prompts fill the steps.
        decode_step_s: of all that decode, without a prompt.
        learned: whether these are measured; else they are guesses of before the first steps.
    """

    prefill_due_s: tuple[float, ...]
    prefill_s_per_token: float
    decode_step_s: float
    learned: bool = True


@dataclass(frozen=True, slots=True)
class Totals:
    """What /metrics follows of one engine core; unlike a snapshot it sorts nothing."""

    rank: int
    epoch: int
    policy: str
    lease_left_s: float
    policy_errors: int
    waiting: int
    running: int
    counters: tuple[TenantCounters, ...]
    rules: dict[str, int] = field(default_factory=dict)
    shed: float = 0.0
    histograms: tuple[HistogramCounts, ...] = ()
    stopped: bool = False
    contract_epoch: int = 0
    loads: tuple[TenantLoad, ...] = ()
    parts: dict[str, TenantPart] = field(default_factory=dict)
    hint: RoutingHint | None = None

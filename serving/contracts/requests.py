"""What is told of a request: offered, arrived, inside, gone?"""

from dataclasses import dataclass
from typing import Any, Literal

from serving.contracts.codec import STRICT

PREFIX_BLOCK_TOKENS = 512  # of each block that a `prefix` names
Finish = Literal["stop", "length", "aborted", "error", "rejected", "unfinished"]
Miss = Literal["", "ttft_queue", "ttft_execution", "tpot", "itl", "e2e", "not_served"]
Deprioritised = Literal["over_share", "parked", "demoted"]


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency targets of one request in milliseconds; None means no target.

    `itl_ms` is for the gaps between its tokens: `meets_itl`.
    """

    __pydantic_config__ = STRICT
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    itl_ms: float | None = None

    def scaled(self, factor: float) -> "SLO":
        """The same targets `factor` times as long (small hardware: factor > 1)."""
        own = (self.ttft_ms, self.tpot_ms, self.e2e_ms, self.itl_ms)
        return SLO(*(None if ms is None else ms * factor for ms in own))


def meets_itl(late_gaps: Any, gaps: Any) -> Any:
    """Whether at most 1% of the gaps between a request's tokens are longer than `SLO.itl_ms`.

    So of fewer than 100 gaps none may be. Tokens that come together have gaps of 0.

    Args:
        late_gaps: how many are longer; a number, or an array.
        gaps: how many there are, of n tokens n - 1.
    """
    return 100 * late_gaps <= gaps


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a workload: what is offered, and how long its answer truly is.

    `prefix` names shared 512-token prompt blocks (Mooncake's hash_ids); empty means unique.
    `cached_tokens` of the prompt are in the KV cache when it arrives, whatever came before it.
    `slo`: targets of its own; None means those of its class.
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = "default"
    slo_class: str = "batch"
    priority: int = 0
    prefix: tuple[int, ...] = ()
    max_tokens: int | None = None
    slo: SLO | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as the engine saw it come in.

    `cached_tokens` of its prompt were in the KV cache then. `prefix` has a number for each whole
    block of 512 tokens of its prompt, from the start: equal numbers, equal prompts up to there.
    `replica` of a fleet; empty where there is one server.
    """

    seq: int
    request_id: str
    arrival_s: float
    tenant: str
    slo_class: str
    slo: SLO
    prompt_tokens: int
    max_tokens: int
    priority: int = 0
    cached_tokens: int = 0
    prefix: tuple[int, ...] = ()
    replica: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request as it left. `epoch` and `policy` were in force when it was admitted.

    One that was aborted after its first token is judged by its targets so far: it met them, or
    missed one. Before its first token it missed (`not_served`) if that was late by then or the
    whole answer was; else it is `withdrawn`. What ends on a stop string has the finish `stop`.

    `deprioritised`: why it stood behind others, and since how long after its arrival (seconds).
    `cached_tokens` of its prompt came from the KV cache when it was admitted; those of one that
    was not, as of its arrival. A client cannot know: 0.
    `late_gaps` between its tokens were longer than `slo.itl_ms`. `replica` is as in `Arrival`.
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
    cached_tokens: int = 0
    late_gaps: int = 0
    replica: str = ""

    @property
    def withdrawn(self) -> bool:
        """Its client left while nothing was due: neither met nor missed, and in no share."""
        return self.finish == "aborted" and not self.met and not self.miss


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

    `computed_tokens` of prompt and answer have their KV in the cache. `cached_tokens` of one that
    waits are there for it, as last looked up; of one that runs they were when it was admitted.
    `prefix` is as in `Arrival`.
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
    cached_tokens: int = 0
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ResidentPage:
    """The requests inside one engine core, running ones first; `left_out` did not fit.

    `prefill_s_per_token`: as measured while prompts fill the steps; 0 is unknown. `replica` is as
    in `Arrival`.
    """

    now_s: float
    requests: tuple[ResidentRequest, ...] = ()
    left_out: int = 0
    prefill_s_per_token: float = 0.0
    replica: str = ""

"""When did what happen to a request, against which targets? Called by `hmas why`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from serving.contracts import Deprioritised, Outcome

BAR_COLUMNS = 60
WAITING, PREFILL, DECODING = ".", "=", "#"
SERVED = ("stop", "length")

CAUSES = {
    "ttft_queue": "half or more of the target for its first token went by in the queue",
    "ttft_execution": "it was admitted in time, and its prompt took too long",
    "tpot": "its tokens came too slowly",
    "itl": "more than 1% of the gaps between its tokens were too long",
    "e2e": "its answer ended too late",
    "not_served": "it was never fully served",
}

PUT_OFF: dict[Deprioritised, str] = {
    "over_share": "its tenant had sent more than its share: the others' requests go first",
    "parked": "not all could be in time, and its prefill was among the costliest (triage)",
    "demoted": "it could no longer be in time: whoever still can goes first",
}

TargetName = Literal["first token", "per token", "end"]
MomentName = Literal["arrived", "put off", "admitted", "first token", "ended"]


@dataclass(frozen=True, slots=True)
class Target:
    """One promise and what became of it, in seconds; `real_s` is None where it never came."""

    name: TargetName
    target_s: float
    real_s: float | None

    @property
    def met(self) -> bool:
        """In time. An answer of one token has no time per token, and keeps that promise."""
        if self.real_s is None:
            return self.name == "per token"
        return self.real_s <= self.target_s

    @property
    def over_s(self) -> float | None:
        """Seconds past the target; negative is time to spare."""
        return None if self.real_s is None else self.real_s - self.target_s


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, `after_s` seconds after the request came, and why if known."""

    name: MomentName
    at_s: float
    after_s: float
    why: str = ""


def admitted_s(outcome: Outcome) -> float | None:
    """When the request left the queue for the first time, on the engine's clock."""
    return None if outcome.queue_s is None else outcome.arrival_s + outcome.queue_s


def moments(outcome: Outcome) -> list[Moment]:
    """What happened, in order; what never did is left out."""
    happened: list[tuple[MomentName, float | None, str]] = [
        ("arrived", 0.0, ""),
        *(("put off", after_s, PUT_OFF[why]) for why, after_s in outcome.deprioritised),
        ("admitted", outcome.queue_s, ""),
        ("first token", outcome.ttft_s, ""),
        ("ended", outcome.e2e_s, ""),
    ]
    told = [
        Moment(name, outcome.arrival_s + after_s, after_s, why)
        for name, after_s, why in happened
        if after_s is not None
    ]
    return sorted(told, key=lambda moment: moment.after_s)


def targets(outcome: Outcome) -> list[Target]:
    """What was promised, each against what came; empty for a request without targets."""
    slo = outcome.slo
    promised: list[tuple[TargetName, float | None, float | None]] = [
        ("first token", slo.ttft_ms, outcome.ttft_s),
        ("per token", slo.tpot_ms, outcome.tpot_s),
        ("end", slo.e2e_ms, outcome.e2e_s if outcome.finish in SERVED else None),
    ]
    return [Target(name, ms / 1e3, real_s) for name, ms, real_s in promised if ms is not None]


def bar(outcome: Outcome, columns: int = BAR_COLUMNS) -> str:
    """Its life as one line of characters, each an equal part of the time from arrival to end."""
    end_s = outcome.e2e_s
    if end_s <= 0:
        return ""
    queue_s = end_s if outcome.queue_s is None else outcome.queue_s
    ttft_s = end_s if outcome.ttft_s is None else outcome.ttft_s
    return "".join(_marks(columns, end_s, queue_s, ttft_s))


def due_column(outcome: Outcome, columns: int = BAR_COLUMNS) -> int | None:
    """The bar's column at which the first token was due; None where it lies past the bar."""
    if outcome.slo.ttft_ms is None or outcome.e2e_s <= 0:
        return None
    column = int(outcome.slo.ttft_ms / 1e3 / outcome.e2e_s * columns)
    return column if column < columns else None


def _marks(columns: int, end_s: float, queue_s: float, ttft_s: float) -> Iterator[str]:
    for column in range(columns):
        at_s = (column + 0.5) / columns * end_s
        yield WAITING if at_s < queue_s else PREFILL if at_s < ttft_s else DECODING

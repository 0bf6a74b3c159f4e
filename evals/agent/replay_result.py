"""What is a replayed decision, and what do many of them come to? Made by `evals.agent.replay`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from evals.result.statistics import Interval, mean_interval, paired_difference
from hmas_agents.case_file import Candidate, candidate_key


@dataclass(frozen=True, slots=True)
class Said:
    """What was proposed, now or then.

    Attributes:
        source: `model`, or `rules` where no model was asked or its reply was of no use.
        valid: the model's reply was usable; None where none was asked.
        attainment: mean label (0..1) of the proposal; None without labels.
        regret: of the best allowed policy's label over it; None without labels.
    """

    source: str
    policy: str
    params: dict[str, float]
    reason: str = ""
    valid: bool | None = None
    latency_s: float | None = None
    tokens: int | None = None
    faults: tuple[str, ...] = ()
    attainment: float | None = None
    regret: float | None = None

    @property
    def candidate(self) -> Candidate:
        """Policy and parameters."""
        return self.policy, self.params


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision, then and now.

    Attributes:
        chosen: what was put in force then, and its mean label.
        best: of the allowed policies, by label; empty without labels.
    """

    decision: int
    at_s: float
    in_force: str
    old: Said
    new: Said
    chosen: str
    chosen_attainment: float | None = None
    best: str = ""
    best_attainment: float | None = None

    @property
    def changed(self) -> bool:
        """Whether the two propose different things."""
        return candidate_key(*self.old.candidate) != candidate_key(*self.new.candidate)


@dataclass(frozen=True, slots=True)
class Summary:
    """A replay in figures; regret over decisions, the difference in pairs (new - old)."""

    decisions: int
    skipped: int
    changed: int
    regret_old: Interval | None = None
    regret_new: Interval | None = None
    regret_change: Interval | None = None
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)


def summarise(replayed: Sequence[Replayed], skipped: int) -> Summary:
    """Regret, validity, latency and tokens, then and now."""
    old = [each.old.regret for each in replayed if each.old.regret is not None]
    new = [each.new.regret for each in replayed if each.new.regret is not None]
    return Summary(
        decisions=len(replayed),
        skipped=skipped,
        changed=sum(each.changed for each in replayed),
        regret_old=mean_interval(old) if old else None,
        regret_new=mean_interval(new) if new else None,
        regret_change=paired_difference(old, new) if old else None,
        figures={
            "old": _figures([each.old for each in replayed]),
            "new": _figures([each.new for each in replayed]),
        },
    )


def _figures(said: Sequence[Said]) -> dict[str, float | None]:
    def mean(values: list[Any]) -> float | None:
        known = [float(value) for value in values if value is not None]
        return fmean(known) if known else None

    return {
        "validity": mean([each.valid for each in said]),
        "latency_s": mean([each.latency_s for each in said]),
        "tokens": mean([each.tokens for each in said]),
    }

"""What is a replayed decision, and what do many of them come to? Made by `evals.agent.replay`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from evals.report.sheet import Sheet
from evals.result.statistics import Interval, mean_interval, paired_difference
from hmas_agents.case_file import Candidate, candidate_key
from hmas_agents.forms import clock, percent
from serving.policies import format_policy


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
    def mean(values: Sequence[float | None]) -> float | None:
        known = [float(value) for value in values if value is not None]
        return fmean(known) if known else None

    return {
        "validity": mean([each.valid for each in said]),
        "latency_s": mean([each.latency_s for each in said]),
        "tokens": mean([each.tokens for each in said]),
    }


def sheet(replayed: Sequence[Replayed]) -> Sheet:
    """Then and now, a row per decision."""
    rows = [
        ["*" if each.changed else "", str(each.decision), clock(each.at_s), each.in_force,
         _named(each.old), percent(each.old.attainment), _named(each.new),
         percent(each.new.attainment), each.best or "-", percent(each.best_attainment)]
        for each in replayed
    ]  # fmt: skip
    met = "attainment"
    heads = ("", "id", "time", "in force", "old", met, "new", met, "best", met)
    return Sheet("Long decisions, then and now", heads, rows, left_aligned=5)


def lines(summary: Summary) -> list[str]:
    """The figures under the table."""
    found = [f"{summary.changed} of {summary.decisions} decisions changed (*)"]
    if summary.skipped:
        found.append(f"{summary.skipped} decisions hold no situation and were left out")
    if summary.regret_old and summary.regret_new and summary.regret_change:
        found.append(
            f"regret: old {summary.regret_old.text('{:.3f}')}, "
            f"new {summary.regret_new.text('{:.3f}')}, "
            f"new - old {summary.regret_change.text('{:+.3f}')}"
        )
    for when in ("old", "new"):
        figures = summary.figures[when]
        if figures["validity"] is not None:
            latency_s, tokens = figures["latency_s"], figures["tokens"]
            found.append(
                f"{when}: {figures['validity']:.0%} of the replies usable"
                + ("" if latency_s is None else f", {latency_s:.2f} s")
                + ("" if tokens is None else f", {tokens:.0f} tokens")
            )
    return found


def _named(said: Said) -> str:
    return f"{format_policy(said.policy, said.params)} ({said.source})"

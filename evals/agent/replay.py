"""What would another prompt, model or rule have proposed, and would it have been better?

Re-asks recorded long decisions: the summary is built anew from the recorded state, so an edit
of what is summarised counts too. Nothing is applied. Called by `hmas replay`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from evals.agent.contenders import Model, by_rules
from evals.agent.labels import label_cases
from evals.agent.scoring import best_of, regret_of
from evals.progress import CaseProgress
from evals.report.sheet import Sheet
from evals.result.statistics import Interval, mean_interval, paired_difference
from hmas_agents.case_file import Candidate, Case, Plan, candidate_key, is_candidate
from hmas_agents.cases import cases_of
from hmas_agents.config import Config
from hmas_agents.forms import clock, percent
from hmas_agents.ledger.reader import LedgerReader, StoredDecision, config_of
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.records import Proposal
from serving.policies import format_policy

SEED = 3000  # futures that neither the twin of the run nor a case set has seen
SOURCES = ("model", "rules")  # who is asked; the twin and a rollback are not


@dataclass(frozen=True, slots=True)
class Said:
    """What was proposed, now or then."""

    source: str  # `model`, or `rules` where no model was asked or its reply was of no use
    policy: str
    params: dict[str, float]
    reason: str = ""
    valid: bool | None = None  # the model's reply was usable; None where none was asked
    latency_s: float | None = None
    tokens: int | None = None
    faults: tuple[str, ...] = ()
    attainment: float | None = None  # mean label (0..1) of the proposal; None without labels
    regret: float | None = None  # of the best allowed policy's label over it; None without labels

    @property
    def candidate(self) -> Candidate:
        """Policy and parameters."""
        return self.policy, self.params


@dataclass(frozen=True, slots=True)
class Replayed:
    """One decision, then and now."""

    decision: int
    at_s: float
    in_force: str
    old: Said
    new: Said
    chosen: str  # what was put in force then, and its mean label
    chosen_attainment: float | None = None
    best: str = ""  # of the allowed policies, by label; empty without labels
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


class ReplayError(RuntimeError):
    """The model that should be asked again does not answer; names its URL."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run's long decisions that hold their situation, as cases."""

    config: Config
    pairs: tuple[tuple[StoredDecision, Case], ...]
    skipped: int


def load_run(path: Path, run: int, decision: int | None) -> Recorded:
    """The long decisions of a run, or one of them.

    Raises:
        LedgerError: no such run or decision, or none that can be re-asked.
    """
    with LedgerReader(path) as reader:
        recorded = reader.get_run(run)
        stored = {each.id: each for each in reader.list_decisions(run, "long")}
        cases = {int(case.provenance["decision"]): case for case in cases_of(reader, run)}
    wanted = [each for each in stored if decision in {None, each}]
    if not wanted:
        raise LedgerError(f"{path}: run {run} has no long decision {decision or ''}".rstrip())
    pairs = tuple((stored[each], cases[each]) for each in wanted if each in cases)
    if not pairs:
        raise LedgerError(
            f"{path}: run {run}: no situation is recorded with its {len(wanted)} long decisions "
            "(ledgers of older versions hold none)"
        )
    return Recorded(config_of(recorded, path), pairs, len(wanted) - len(pairs))


def ask_again(
    recorded: Recorded, model: Model | None, on_done: Callable[[int], object]
) -> list[Replayed]:
    """Put each decision to the model (None: to the rule table) again; no labels yet.

    Raises:
        ReplayError: the model cannot be reached; the rule table would stand in for every reply.
    """
    replayed = []
    for number, (stored, case) in enumerate(recorded.pairs, start=1):
        replayed.append(Replayed(
            decision=stored.id, at_s=stored.record.at_s, in_force=case.incumbent[0],
            old=_said_then(stored, by_rules=model is None),
            new=_by_rules(case) if model is None else _by_model(case, model),
            chosen=candidate_key(*_chosen(stored, case)),
        ))  # fmt: skip
        on_done(number)
    return replayed


def label(
    recorded: Recorded,
    replayed: Sequence[Replayed],
    draws: int,
    *,
    jobs: int,
    progress: CaseProgress,
) -> list[Replayed]:
    """The same with the twin's attainment of each proposal, and of the best policy.

    Each decision looks as far ahead as it did then.

    Raises:
        WorkerError: a forecast failed.
    """
    cases = [case for _, case in recorded.pairs]
    wanted = {
        case.id: [each.old.candidate, each.new.candidate, _chosen(stored, case)]
        for (stored, case), each in zip(recorded.pairs, replayed, strict=True)
    }
    horizons_s = {
        case.id: float(stored.record.twin.get("horizon_s", recorded.config.twin.horizon_s))
        for stored, case in recorded.pairs
    }
    done = label_cases(
        cases, wanted, lambda case: Plan(draws, SEED, horizons_s[case.id]), jobs, progress
    )
    return [_with_labels(each, case) for each, case in zip(replayed, done, strict=True)]


def _said_then(stored: StoredDecision, *, by_rules: bool) -> Said:
    """The recorded first proposal of the model, else of the rule table, else what was chosen."""
    record = stored.record
    asked = bool(record.model) and not by_rules
    usable = {
        source: next((p for p in record.proposals if _is_usable(p, source)), None)
        for source in SOURCES
    }
    first = usable["rules"] if by_rules else usable["model"] or usable["rules"]
    if first is None:
        first = Proposal("incumbent", record.policy_before, reason="nothing was proposed")
    return Said(
        first.source, first.policy, dict(first.params), first.reason,
        valid=usable["model"] is not None if asked else None,
        latency_s=record.model_latency_s if asked else None,
        tokens=record.model_tokens if asked else None, faults=tuple(record.faults),
    )  # fmt: skip


def _is_usable(proposal: Proposal, source: str) -> bool:
    return proposal.source == source and is_candidate(proposal.policy, proposal.params)


def _by_rules(case: Case) -> Said:
    proposal = by_rules(case)
    return Said("rules", proposal.policy, dict(proposal.params), proposal.reason)


def _by_model(case: Case, model: Model) -> Said:
    reply = model(case).asked[0]
    if away := [fault for fault in reply.faults if fault.startswith("model_unreachable")]:
        raise ReplayError(f"{model.url}: {away[0]}: is the model served there?")
    said = _by_rules(case)
    if reply.choice is not None:
        policy, params = reply.choice
        said = Said("model", policy, params, reply.reason)
    return replace(
        said, valid=reply.choice is not None, latency_s=reply.latency_s, tokens=reply.tokens,
        faults=reply.faults,
    )  # fmt: skip


def _chosen(stored: StoredDecision, case: Case) -> Candidate:
    """What was put in force then; what was in force where the policy is gone since."""
    chosen = stored.record.chosen
    policy, params = str(chosen.get("policy", "")), dict(chosen.get("params") or {})
    return (policy, params) if is_candidate(policy, params) else case.incumbent


def _with_labels(each: Replayed, case: Case) -> Replayed:
    means = {key: fmean(draws) for key, draws in case.labels.items()}
    best = best_of(case.labels, case.allowed)

    def judged(said: Said) -> Said:
        key = candidate_key(*said.candidate)
        return replace(said, attainment=means[key], regret=regret_of(case, said.candidate))

    return replace(
        each, old=judged(each.old), new=judged(each.new), chosen_attainment=means[each.chosen],
        best=best, best_attainment=means[best],
    )  # fmt: skip

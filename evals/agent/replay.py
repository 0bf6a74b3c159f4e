"""What would another prompt, model or rule have proposed, and would it have been better?

Re-asks recorded long decisions: the summary is built anew from the recorded state, so an edit
of what is summarised counts too. Nothing is applied. Called by `hmas replay`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from evals.agent.contenders import Model, by_rules
from evals.agent.labels import label_cases
from evals.agent.replay_result import Replayed, Said
from evals.agent.scoring import best_of, regret_of
from evals.progress import CaseProgress
from hmas_agents.case_file import Candidate, Case, Plan, candidate_key, is_candidate
from hmas_agents.cases import cases_of
from hmas_agents.config import Config
from hmas_agents.ledger.reader import LedgerReader, StoredDecision, config_of
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.records import Proposal

SEED = 3000  # futures that neither the twin of the run nor a case set has seen
SOURCES = ("model", "rules")  # who is asked; the twin and a rollback are not


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

"""Everything that the ledger knows of one request. Called by `hmas why`."""

from collections.abc import Sequence
from dataclasses import dataclass

from hmas_agents.cases import allowed_by
from hmas_agents.explain.company import Company, company
from hmas_agents.explain.counterfactual import (
    Counterfactual,
    OnProgress,
    ReplayError,
    replay_policies,
)
from hmas_agents.explain.life import Moment, Target, moments, targets
from hmas_agents.explain.phases import Phase, during, phases, read_snapshot
from hmas_agents.explain.stretch import LEARN_S, TAIL_S, cut_stretch
from hmas_agents.ledger.reader import LedgerReader, Run, StoredDecision
from hmas_agents.ledger.requests import StoredOutcome, outcomes_between
from serving.contracts import Outcome, Snapshot
from serving.engines.profile import profile_from_snapshot
from serving.engines.ranks import rank_count

LEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """One request: its outcome, the decisions and requests around it, and how else it could end.

    Attributes:
        lived_under: policies and limits in force from its arrival to its end, oldest first.
        decisions: taken within that time, whether or not they changed anything.
        twin: None where it was not asked, or could not answer; `notes` then says why.
    """

    run_id: int
    run_label: str
    mode: str
    outcome: Outcome
    moments: list[Moment]
    targets: list[Target]
    lived_under: list[Phase]
    decisions: list[StoredDecision]
    company: Company
    twin: Counterfactual | None
    notes: list[str]


def explain(
    reader: LedgerReader,
    found: StoredOutcome,
    *,
    lead_s: float = LEAD_S,
    with_twin: bool = True,
    policies: Sequence[str] = (),
    on_progress: OnProgress = lambda *_: None,
) -> Explanation:
    """Explain one request from the ledger.

    Args:
        reader: the ledger.
        found: the request in it.
        lead_s: the twin begins so many seconds before the request came.
        with_twin: ask the twin, which takes seconds for each policy.
        policies: what else to try; by default what the run allowed.
        on_progress: told the policy that is being replayed, its finished requests, and of how many.
    """
    outcome, run_id = found.outcome, found.run_id
    run = next(r for r in reader.list_runs() if r.id == run_id)
    start_s = outcome.arrival_s - lead_s
    left_since_s, arrived_until_s = outcome.arrival_s, outcome.finished_s
    if with_twin:
        left_since_s, arrived_until_s = start_s - LEARN_S, arrived_until_s + TAIL_S
    around = outcomes_between(reader, run_id, left_since_s, arrived_until_s)
    before = reader.last_decision_before(run_id, start_s)
    decisions = reader.list_decisions(run_id, since_s=start_s, until_s=outcome.finished_s + TAIL_S)
    history = [before, *decisions] if before is not None else decisions
    known = phases(history)
    notes: list[str] = []
    twin = None
    if with_twin:
        try:
            twin = _ask_twin(run, outcome, around, history, known, lead_s, policies, on_progress)
        except ReplayError as error:
            notes.append(f"the twin was not asked: {error}")
    return Explanation(
        run_id,
        run.label,
        str(run.config.get("control", {}).get("mode", "")),
        outcome,
        moments(outcome),
        targets(outcome),
        during(known, outcome.arrival_s, outcome.finished_s),
        [d for d in decisions if outcome.arrival_s <= d.record.at_s <= outcome.finished_s],
        company(outcome, around),
        twin,
        notes,
    )


def _ask_twin(
    run: Run,
    outcome: Outcome,
    around: Sequence[Outcome],
    history: Sequence[StoredDecision],
    known: list[Phase],
    lead_s: float,
    policies: Sequence[str],
    on_progress: OnProgress,
) -> Counterfactual:
    snapshot = _nearest_snapshot(history, outcome.arrival_s)
    if snapshot is None:
        raise ReplayError(
            "the ledger holds no decision near it, so the engine's speed and limits are not known"
        )
    if outcome.finish == "rejected":
        raise ReplayError("the request was rejected before it reached the queue")
    stretch = cut_stretch(outcome, around, lead_s, rank_count(snapshot))
    in_force = during(known, stretch.start_s, outcome.finished_s + TAIL_S)
    return replay_policies(
        stretch,
        profile_from_snapshot(snapshot),
        in_force,
        policies or allowed_by(run.config),
        on_progress,
    )


def _nearest_snapshot(history: Sequence[StoredDecision], at_s: float) -> Snapshot | None:
    """The engine as the last decision before `at_s` saw it, else as the first after it."""
    seen = [
        snapshot
        for stored in history
        if (snapshot := read_snapshot(stored.record.snapshot_before)) is not None
    ]
    earlier = [snapshot for snapshot in seen if snapshot.now_s <= at_s]
    return earlier[-1] if earlier else next(iter(seen), None)

"""How would this decision have gone on, had one thing been different? Re-runs it from a step.

Takes what the ledger keeps of a long decision, changes the prompt, the model or the proposals,
and lets the same graph go on from there, on a recorded engine and in advise mode. Called by
`hmas fork`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from graphs.long_horizon import LongHorizon, build_long_horizon, incumbent_of
from graphs.parts import build_parts
from hmas_agents.config import Config
from hmas_agents.follow_up import ROLLBACK
from hmas_agents.ledger.reader import StoredDecision
from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.situation import Situation, decode_situation
from hmas_agents.twin.prediction import Past
from hmas_agents.twin.process import Forecaster
from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    Parts,
    ResidentPage,
    Snapshot,
)

# From which step on the graph runs again.
Step = Literal["summarise", "propose", "verify"]
STEPS: tuple[Step, ...] = get_args(Step)
CONTROLLER = "hmas-fork"
RECORDED = "a recorded engine: nothing is applied"

# What a record holds after each step: what was seen, what was told, what was answered.
_SEEN = ("horizon", "at_s", "trigger", "state", "epoch_before", "policy_before",
    "snapshot_before", "situation")  # fmt: skip
_TOLD = ("summary", "messages", "prompt_name", "prompt_version", "prompt_sha256")
_ANSWERED = ("model", "model_latency_s", "model_tokens", "model_prompt_tokens",
    "model_step_share", "raw_replies")  # fmt: skip
_BY_STEP: dict[Step, tuple[str, ...]] = {
    "summarise": _SEEN,
    "propose": _SEEN + _TOLD,
    "verify": _SEEN + _TOLD + _ANSWERED,
}


class ForkError(ValueError):
    """A decision that cannot be forked; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be different.

    Attributes:
        step: the first step that runs again.
        proposals: joined to those of the decision before `verify` (step `verify` only).
        config: of the run, with the changes to model and prompt.
        switched_at_s: engine times of the switches before, for the guardrails.
        past: what came of the decisions settled by then, for the twin's intervals.
    """

    step: Step
    config: Config
    proposals: Sequence[Proposal] = ()
    switched_at_s: Sequence[float] = ()
    past: Sequence[Past] = ()


def fork(
    stored: StoredDecision, change: Change, forecaster: Forecaster | None = None
) -> DecisionRecord:
    """The decision as it would have been recorded. Nothing is applied or stored.

    Args:
        stored: a long decision of the ledger.
        change: what is different.
        forecaster: where the twin computes; None means in a process of its own.

    Raises:
        ForkError: the ledger does not hold what the step starts from.
        SituationError: the situation was written by a version that this one cannot read.
        PromptError: the prompt cannot be used.
    """
    begun = _begun(stored, change)
    records: list[DecisionRecord] = []
    parts = build_parts(
        RecordedEngine(begun["situation"]),
        _advising(change.config),
        None,
        run_label="",
        controller_id=CONTROLLER,
        on_decision=records.append,
        forecaster=forecaster,
    )
    parts.switched_at_s += change.switched_at_s
    if parts.twin is not None:
        for each in change.past:
            parts.twin.observe(each)
    try:
        build_long_horizon(parts, change.step).invoke(begun)
    finally:
        parts.close()
    return records[-1]


def _begun(stored: StoredDecision, change: Change) -> LongHorizon:
    """What travelled along the edge into the step, with the further proposals."""
    old, step = stored.record, change.step
    if not old.situation:
        raise ForkError(
            f"decision {stored.id}: the ledger holds no situation of it: only long decisions "
            "have one; `hmas trace list --horizon long` shows those"
        )
    if step == "propose" and not old.messages:
        raise ForkError(
            f"decision {stored.id}: no model was asked, so there are no words to ask again: "
            "give --from summarise, which writes them"
        )
    situation = decode_situation(old.situation)
    kept: dict[str, Any] = {name: getattr(old, name) for name in _BY_STEP[step]}
    # As they were before `verify`, which adds the others and fills in the rest.
    asked = [
        Proposal(p.source, p.policy, p.params, p.reason, p.confidence, limits=p.limits)
        for p in old.proposals
        if p.source not in {"incumbent", "twin"}
    ]
    back = [p for p in asked if old.trigger == "rollback" and p.reason.startswith(ROLLBACK)]
    if step == "verify":
        kept["proposals"] = [*asked, *change.proposals]
        kept["faults"] = [fault for fault in old.faults if not fault.startswith("twin_")]
    return {
        "budget_s": None,
        "situation": situation,
        "rollback": back[0] if back else None,
        "record": DecisionRecord(mode="advise", **kept),
        "messages": old.messages,
        "incumbent": incumbent_of(situation.snapshot),
    }


def _advising(config: Config) -> Config:
    control = config.control.model_copy(update={"mode": "advise"})
    return config.model_copy(update={"control": control})


class RecordedEngine:
    """The Engine protocol over one situation: it stands still and takes no writes."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation

    def now(self) -> float:
        """The moment of the situation."""
        return self._situation.snapshot.now_s

    def snapshot(self) -> Snapshot:
        """As recorded."""
        return self._situation.snapshot

    def apply(self, decision: Decision) -> Ack:
        """Refused."""
        return self._refused(decision.policy)

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Refused."""
        return self._refused(f"{ttl_s:g} s, {len(parts or {})} parts for {controller_id}")

    def release(self, controller_id: str) -> Ack:
        """Refused: nothing is held."""
        return self._refused(controller_id)

    def contract(self) -> ContractInForce:
        """As recorded."""
        settings = self._situation.settings
        epoch = self._situation.snapshot.contract_epoch
        return ContractInForce(epoch, settings.contract, settings.slo_scale)

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Refused."""
        epoch = self._situation.snapshot.contract_epoch
        return ContractAck(False, epoch, epoch, f"{RECORDED} ({change.by})")

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:  # noqa: ARG002  the protocol's
        """Empty: what had happened by then is in the situation."""
        return JournalPage(cursor=cursor, lost=0)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """As recorded, at most `limit` of them."""
        page = self._situation.inside
        kept = page.requests[:limit]
        return replace(
            page, requests=kept, left_out=page.left_out + len(page.requests) - len(kept)
        )

    def _refused(self, what: str) -> Ack:
        return Ack(False, self._situation.snapshot.epoch, f"{RECORDED} ({what})")

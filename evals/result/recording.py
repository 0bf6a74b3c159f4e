"""What did a controller do to the engine? A transparent recorder around any engine.

Arms run through it, so that results count policy switches and reports draw them,
whoever decided and whether or not there is a ledger.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    Limits,
    ResidentPage,
    Snapshot,
)
from serving.engines.protocol import Engine
from serving.policies import format_policy


@dataclass(frozen=True, slots=True)
class AppliedDecision:
    """One accepted decision, at a time on the engine's clock; `policy` as `edf:kappa=10`."""

    at_s: float
    policy: str
    limits: Limits
    reason: str


class RecordedEngine:
    """Passes every call on and keeps the accepted decisions in `decisions`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.decisions: list[AppliedDecision] = []

    def now(self) -> float:
        """As the engine."""
        return self._engine.now()

    def snapshot(self) -> Snapshot:
        """As the engine."""
        return self._engine.snapshot()

    def apply(self, decision: Decision) -> Ack:
        """As the engine; an accepted decision is kept."""
        ack = self._engine.apply(decision)
        if ack.accepted:
            self.decisions.append(
                AppliedDecision(
                    self._engine.now(),
                    format_policy(decision.policy, decision.params),
                    decision.limits,
                    decision.reason,
                )
            )
        return ack

    def renew(self, controller_id: str, ttl_s: float) -> Ack:
        """As the engine."""
        return self._engine.renew(controller_id, ttl_s)

    def release(self, controller_id: str) -> Ack:
        """As the engine."""
        return self._engine.release(controller_id)

    def contract(self) -> ContractInForce:
        """As the engine."""
        return self._engine.contract()

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """As the engine."""
        return self._engine.apply_contract(change)

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """As the engine."""
        return self._engine.journal(cursor, limit)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """As the engine."""
        return self._engine.inside(limit)


def count_switches(decisions: Sequence[AppliedDecision]) -> int:
    """How often policy or parameters changed; putting the first in force is no switch."""
    return sum(
        before.policy != after.policy
        for before, after in itertools.pairwise(decisions)
    )

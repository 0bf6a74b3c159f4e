"""What did a controller do to the engine? A transparent recorder around any engine.

Arms run through it, so that results count policy switches and reports draw them,
whoever decided and whether or not there is a ledger.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from serving.contracts import Ack, Decision, Limits
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
        self._apply = engine.apply
        self.decisions: list[AppliedDecision] = []
        self.now, self.snapshot = engine.now, engine.snapshot
        self.renew, self.release = engine.renew, engine.release
        self.contract, self.apply_contract = engine.contract, engine.apply_contract
        self.journal, self.inside = engine.journal, engine.inside

    def apply(self, decision: Decision) -> Ack:
        """As the engine; an accepted decision is kept."""
        ack = self._apply(decision)
        if ack.accepted:
            policy = format_policy(decision.policy, decision.params)
            self.decisions.append(
                AppliedDecision(self.now(), policy, decision.limits, decision.reason)
            )
        return ack


def count_switches(decisions: Sequence[AppliedDecision]) -> int:
    """How often policy or parameters changed; putting the first in force is no switch."""
    return sum(before.policy != after.policy for before, after in itertools.pairwise(decisions))

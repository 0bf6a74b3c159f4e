"""What was in force when? Read off the snapshots that decisions leave in the ledger.

Called by `hmas why`, for the epochs that a request lived under and for their replay.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from hmas_agents.ledger.reader import StoredDecision
from serving.contracts import ContractError, Limits, Snapshot, decode


@dataclass(frozen=True, slots=True)
class Phase:
    """A time in which policy and limits stayed the same.

    Attributes:
        since_s, until_s: on the engine's clock; `until_s` is None for the last one.
        decision_id: the decision that began it; None where a decision only found it so
            (the engine had it before, a lease ended, or somebody else decided).
    """

    since_s: float
    until_s: float | None
    epoch: int
    policy: str
    params: dict[str, float]
    limits: Limits
    decision_id: int | None = None


def phases(decisions: Iterable[StoredDecision]) -> list[Phase]:
    """What was in force from the first decision on, oldest first.

    A phase that no decision began starts, for want of more, when a decision found it.
    """
    found: list[Phase] = []
    for stored in sorted(decisions, key=lambda stored: (stored.record.at_s, stored.id)):
        record = stored.record
        for seen, decision_id in (
            (read_snapshot(record.snapshot_before), None),
            (read_snapshot(record.snapshot_after), stored.id),
        ):
            if seen is None:
                continue
            phase = Phase(
                seen.now_s, None, seen.epoch, seen.policy, seen.params, seen.limits, decision_id
            )
            if found and _same(found[-1], phase):
                continue
            if found:
                found[-1] = replace(found[-1], until_s=phase.since_s)
            found.append(phase)
    return found


def during(found: list[Phase], since_s: float, until_s: float) -> list[Phase]:
    """The phases in force at some time between the two.

    What the first decision found is taken to have been in force before it, too.
    """
    return [
        phase
        for i, phase in enumerate(found)
        if (phase.since_s <= until_s or i == 0)
        and (phase.until_s is None or phase.until_s > since_s)
    ]


def read_snapshot(data: dict[str, Any]) -> Snapshot | None:
    """A decision's snapshot; None where there is none or it cannot be read."""
    try:
        return decode(Snapshot, data) if data else None
    except ContractError:
        return None


def _same(a: Phase, b: Phase) -> bool:
    return (a.epoch, a.policy, a.params, a.limits) == (b.epoch, b.policy, b.params, b.limits)

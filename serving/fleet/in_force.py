"""Which replicas lack the decision or the contract that is in force on the others?

Pure functions, for `FleetEngine`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from serving.contracts import Decision, Snapshot


@dataclass(frozen=True, slots=True)
class Lacking:
    """Replicas that do not have a decision, though nobody else holds them.

    Attributes:
        behind: it can be given to them as it is: they are new, or missed it.
        overdue: only a decision of a higher epoch can: their lease ran out while they were away,
            which raised their own epoch.
    """

    behind: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()


def lack_decision(shots: Mapping[str, Snapshot], decision: Decision) -> Lacking:
    """Who lacks it; nobody while no replica has it any more, or while one is stopped."""
    has = (decision.controller_id, decision.epoch)
    holders = {(rank.controller_id, rank.epoch) for shot in shots.values() for rank in _ranks(shot)}
    if has not in holders or any(shot.stopped for shot in shots.values()):
        return Lacking()
    behind, overdue = list[str](), list[str]()
    for name, shot in shots.items():
        free = [r for r in _ranks(shot) if r.controller_id in {"", decision.controller_id}]
        if any((rank.controller_id, rank.epoch) != has for rank in free):
            (behind if shot.epoch < decision.epoch else overdue).append(name)
    return Lacking(tuple(behind), tuple(overdue))


def lack_contract(shots: Mapping[str, Snapshot]) -> tuple[str, Collection[str]]:
    """Who has the newest contract, and who has an older one."""
    oldest = {
        name: min(rank.contract_epoch for rank in _ranks(shot)) for name, shot in shots.items()
    }
    newest = max(shots, key=lambda name: shots[name].contract_epoch)
    behind = [name for name, epoch in oldest.items() if epoch < shots[newest].contract_epoch]
    return newest, behind


def _ranks(shot: Snapshot) -> tuple[Snapshot, ...]:
    return shot.ranks or (shot,)

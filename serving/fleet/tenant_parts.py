"""Which part of a tenant's terms does each live replica give? By what they say at each look."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serving.contracts import Contract, Parts, Snapshot
from serving.core.tenants import DECODE_WORK
from serving.fleet.shares import Table, divide, divide_by_demand, parts_of

# Of what was done and asked for before, so much counts at the next look: answers are counted when
# they end, and a look of two seconds sees few of them.
KEPT = 0.8


@dataclass(slots=True)
class _Replica:
    """What a replica had counted by the last look, and the mean of what it did in each.

    By tenant: `work` in tokens as `serving.core.tenants` counts them, `asked` in requests.
    """

    started_s: float
    work: dict[str, float]
    asked: dict[str, float]
    served: dict[str, float] = field(default_factory=dict)
    demand: dict[str, float] = field(default_factory=dict)


class TenantParts:
    """Divides at each look. Nothing is kept of a replica that does not answer."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}

    def look(self, contract: Contract, shots: Mapping[str, Snapshot]) -> dict[str, Parts]:
        """The parts of each replica.

        Args:
            contract: of the fleet.
            shots: by replica, at least one.
        """
        before = self._replicas
        self._replicas = {name: _seen(shot, before.get(name)) for name, shot in shots.items()}
        replicas = list(self._replicas.values())
        tenants = sorted({tenant for one in replicas for tenant in one.asked})
        loads = [{load.tenant: load.waiting for load in shot.loads} for shot in shots.values()]
        waiting = _table(tenants, loads)
        begun = _table(tenants, [one.asked for one in replicas]) - waiting
        work = _table(tenants, [one.work for one in replicas])
        tokens = work.sum(axis=0) / np.maximum(1.0, begun.sum(axis=0))  # of a request
        weights = np.array([contract.terms_of(tenant).weight for tenant in tenants])
        served = _table(tenants, [one.served for one in replicas])
        demand = _table(tenants, [one.demand for one in replicas])
        shares = divide(weights, waiting * tokens, served)
        told = parts_of(tenants, shares, divide_by_demand(demand))
        return dict(zip(shots, told, strict=True))


def _table(tenants: Sequence[str], rows: Sequence[Mapping[str, float]]) -> Table:
    """A row for each replica, a column for each tenant, 0 where nothing is known."""
    figures = [[row.get(tenant, 0.0) for tenant in tenants] for row in rows]
    return np.array(figures, float).reshape(len(rows), len(tenants))


def _seen(shot: Snapshot, before: _Replica | None) -> _Replica:
    work, asked = dict[str, float](), dict[str, float]()
    for row in shot.counters:
        tokens = row.prompt_tokens - row.cached_prompt_tokens + DECODE_WORK * row.output_tokens
        work[row.tenant] = work.get(row.tenant, 0.0) + tokens
        asked[row.tenant] = asked.get(row.tenant, 0.0) + row.received + row.rejected
    if before is None or before.started_s != shot.started_s:
        return _Replica(shot.started_s, work, asked)
    return _Replica(
        shot.started_s, work, asked, _smooth(before.served, work, before.work),
        _smooth(before.demand, asked, before.asked),
    )  # fmt: skip


def _smooth(
    mean: Mapping[str, float], now: Mapping[str, float], before: Mapping[str, float]
) -> dict[str, float]:
    """The mean over looks, by one more."""
    return {
        tenant: KEPT * mean.get(tenant, 0.0)
        + (1.0 - KEPT) * max(0.0, count - before.get(tenant, 0.0))
        for tenant, count in now.items()
    }

"""Whose lane is it? The names of the core's rows of tenants.

Work, floors and buckets are counted in `core.tenants`; here is who has a lane of its own.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from serving.contracts import WHOLE, Contract, Parts, TenantLoad
from serving.contracts.contract import MAX_FLOORS, OTHER
from serving.core import tenants
from serving.core.state import NONE, Core, with_lanes
from serving.perception.rows import Rows

LEAST_LANE_WEIGHT = 1e-3


def divided_floors(floors: Mapping[str, float], parts: Parts) -> Mapping[str, float]:
    """Floors on one replica; all shrink alike where they are more than it can promise."""
    if not parts:
        return floors
    here = {name: floor * parts.get(name, WHOLE).share for name, floor in floors.items()}
    room = MAX_FLOORS / max(MAX_FLOORS, sum(here.values()))
    return {name: room * floor for name, floor in here.items()}


def _figure(name: str) -> Any:
    def read(lane: "Lane") -> Any:
        return lane.rows.core.tenants[name][lane.row].item()

    def write(lane: "Lane", value: float) -> None:
        lane.rows.core.tenants[name][lane.row] = value

    return property(read, write)


class Lane:
    """One tenant's row of `core.tenants`.

    Attributes:
        waiting: how many of its requests wait.
        inside: its requests that arrived and have not left.
        running: its requests in the batch.
        decoding: its requests that produce tokens.
        work: weighted work so far, in tokens; lifted when a backlog begins.
        owed: work that its floor promises and that was not done yet, in tokens.
        ahead_s: until when the bucket is used up, seconds on the engine's clock.
        entered: number of its last arrival.
    """

    __slots__ = ("row", "rows", "tenant")
    weight, floor = _figure("weight"), _figure("floor")
    waiting, inside, running = _figure("waiting"), _figure("inside"), _figure("running")
    decoding, work, owed = _figure("decoding"), _figure("work"), _figure("owed")
    ahead_s, entered = _figure("ahead_s"), _figure("entered")

    def __init__(self, rows: Rows, row: int, tenant: str) -> None:
        self.rows, self.row, self.tenant = rows, row, tenant


class Lanes:
    """All lanes; at most `max_tenants` and the configured ones, and one for everybody else.

    Whoever may name tenants may invent some, so a lane is a tenant's for as long as it has
    something inside: when all are taken, the one that was left longest ago is given away.

    Args:
        weights: relative weight per tenant; 1 where none is given. These tenants always have a
            lane of their own.
        floors: least share of the work (0..1) while the tenant has a backlog.
        bucket_s: seconds of its share that a tenant may run ahead.
        most_owed: tokens. Who cannot start (a grammar, a LoRA slot) is not owed more and more.

    Attributes:
        rows: the arrays, and the requests in them.
    """

    def __init__(
        self,
        weights: dict[str, float],
        floors: dict[str, float],
        max_tenants: int,
        bucket_s: float = 10.0,
        most_owed: float = float("inf"),
    ) -> None:
        self.rows = Rows(max_tenants + 1)
        self.core.engine["bucket_s"], self.core.engine["most_owed"] = bucket_s, most_owed
        self._weights, self._floors, self._most = weights, floors, max_tenants
        self._other_weight = 1.0
        self._parts: Parts = {}
        self._divided: Mapping[str, float] = floors
        self._by_tenant: dict[str, Lane] = {}
        self._free: list[int] = []

    @property
    def core(self) -> Core:
        """The arrays."""
        return self.rows.core

    def enter(self, tenant: str) -> Lane:
        """The lane of a request that arrives between two steps; `core.batch` counts it there."""
        if tenant not in self._by_tenant and not self._is_configured(tenant):
            self._make_room()
        return self.of(tenant)

    def of(self, tenant: str) -> Lane:
        """The tenant's lane; that of all others while there is no room for one of its own."""
        lane = self._by_tenant.get(tenant)
        if lane is not None:
            return lane
        if not self._is_configured(tenant) and len(self._borrowed()) >= self._most:
            tenant = OTHER
            if tenant in self._by_tenant:
                return self._by_tenant[tenant]
        lane = self._by_tenant[tenant] = Lane(self.rows, self._new_row(), tenant)
        self._give(lane)
        return lane

    def promise(
        self, weights: dict[str, float], floors: dict[str, float], other_weight: float
    ) -> None:
        """Other weights and floors from now on; work done so far counts as it was weighted.

        `other_weight` is that of tenants without one of their own.
        """
        self._weights, self._floors, self._other_weight = weights, floors, other_weight
        self.divide(self._parts)

    def divide(self, parts: Parts) -> None:
        """Give these parts of what is promised, which holds for a whole fleet."""
        self._parts, self._divided = parts, divided_floors(self._floors, parts)
        for lane in self:
            self._give(lane)

    def follow(self, contract: Contract) -> None:
        """Go by the weights and floors of this contract."""
        tenants = contract.tenants
        self.promise(
            {name: terms.weight for name, terms in tenants.items()},
            {name: terms.floor for name, terms in tenants.items() if terms.floor > 0},
            contract.terms_of(OTHER).weight,
        )

    def __len__(self) -> int:
        return len(self._by_tenant)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_tenant.values())

    def count_decodes(self, silent: Mapping[Lane, int] = MappingProxyType({})) -> None:
        """A step is over: every decode has done its work, except `silent` ones of each lane."""
        column = self.core.tenants["silent"]
        column[:] = 0
        for lane, count in silent.items():
            column[lane.row] = count
        tenants.count_decodes(self.core)

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        row = int(self.core.engine["lanes"][0])
        if row == len(self.core.tenants):
            self.rows.core = with_lanes(self.core, 2 * row)
        self.core.engine["lanes"] = row + 1
        return row

    def _is_configured(self, tenant: str) -> bool:
        return tenant in self._weights or tenant in self._floors

    def _borrowed(self) -> list[Lane]:
        """The lanes of tenants that nobody has configured."""
        return [one for one in self if one.tenant != OTHER and not self._is_configured(one.tenant)]

    def _make_room(self) -> None:
        """Give away the lane that was left longest ago, if all are taken."""
        borrowed = self._borrowed()
        if len(borrowed) < self._most:
            return
        left = [lane for lane in borrowed if not (lane.inside or lane.waiting or lane.running)]
        if left:
            row = self._by_tenant.pop(min(left, key=lambda lane: lane.entered).tenant).row
            self.core.tenants[row] = 0
            self.core.tenants["weight"][row], self.core.tenants["first"][row] = 1.0, NONE
            self._free.append(row)

    def _give(self, lane: Lane) -> None:
        """Weight and floor as they are promised now."""
        weight = self._weights.get(lane.tenant, self._other_weight)
        lane.weight = max(weight * self._parts.get(lane.tenant, WHOLE).share, LEAST_LANE_WEIGHT)
        lane.floor = self._divided.get(lane.tenant, 0.0)
        if lane.floor == 0.0:
            lane.owed = 0.0


def loads(lanes: Lanes) -> tuple[TenantLoad, ...]:
    """Of each tenant that has something inside."""
    return tuple(TenantLoad(one.tenant, one.waiting, one.inside) for one in lanes if one.inside)

"""Which tenant is owed service? One lane of the waiting queue per tenant.

A lane counts its tenant's work: prompt tokens when a request is admitted, and
`DECODE_WORK` per step of each of its decodes. Called by the queue and the observer.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from serving.contracts.contract import OTHER

# A decode step of one request weighs as much as two prompt tokens (VTC, arXiv 2401.00588).
DECODE_WORK = 2.0


@dataclass(slots=True, eq=False)
class Lane:
    """One tenant.

    Attributes:
        heap: its waiting requests, best first (the queue's business).
        head: the first of them, as the queue knows it.
        waiting: how many of them are still valid.
        inside: its requests that arrived and have not left.
        running: its requests in the batch.
        decoding: its requests that produce tokens.
        work: weighted work so far, in tokens; lifted when a backlog begins.
        owed: work that its floor promises and that was not done yet, in tokens.
        ahead_s: until when the bucket is used up, seconds on the engine's clock.
    """

    tenant: str
    weight: float
    floor: float
    heap: list[Any] = field(default_factory=list)
    head: Any = None
    waiting: int = 0
    inside: int = 0
    running: int = 0
    decoding: int = 0
    work: float = 0.0
    owed: float = 0.0
    ahead_s: float = 0.0
    entered: int = 0  # number of its last arrival


class Lanes:
    """All lanes; at most `max_tenants` and the configured ones, and one for everybody else.

    Whoever may name tenants may invent some, so a lane is a tenant's for as long as it has
    something inside: when all are taken, the one that was left longest ago is given away.

    Args:
        weights: relative weight per tenant; 1 where none is given. These tenants always have a
            lane of their own.
        floors: least share of the work (0..1) while the tenant has a backlog.
        bucket_s: seconds of its share that a tenant may run ahead.

    Attributes:
        floored: the lanes that have a floor.
        most_owed: tokens. Who cannot start (a grammar, a LoRA slot) is not owed more and more.
    """

    def __init__(
        self,
        weights: dict[str, float],
        floors: dict[str, float],
        max_tenants: int,
        bucket_s: float = 10.0,
    ) -> None:
        self._weights, self._floors, self._most = weights, floors, max_tenants
        self._bucket_s, self._other_weight = bucket_s, 1.0
        self._by_tenant: dict[str, Lane] = {}
        self.floored: list[Lane] = []
        self.most_owed = math.inf
        self._arrivals = 0
        self._virtual = 0.0  # the least work of a backlogged lane, when it was last served

    def enter(self, tenant: str) -> Lane:
        """The lane of a request that arrives between two steps."""
        if tenant not in self._by_tenant and not self._is_configured(tenant):
            self._make_room()
        lane = self.of(tenant)
        self._arrivals = lane.entered = self._arrivals + 1
        return lane

    def of(self, tenant: str) -> Lane:
        """The tenant's lane; that of all others while there is no room for one of its own."""
        lane = self._by_tenant.get(tenant)
        if lane is not None:
            return lane
        if not self._is_configured(tenant) and len(self._borrowed()) >= self._most:
            tenant = OTHER
            if tenant in self._by_tenant:
                return self._by_tenant[tenant]
        lane = self._by_tenant[tenant] = Lane(tenant, 1.0, 0.0)
        self._give(lane)
        return lane

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
            del self._by_tenant[min(left, key=lambda lane: lane.entered).tenant]

    def _give(self, lane: Lane) -> None:
        """Weight and floor as they are promised now."""
        lane.weight = max(self._weights.get(lane.tenant, self._other_weight), 1e-3)
        lane.floor = self._floors.get(lane.tenant, 0.0)
        if lane.floor > 0:
            self.floored.append(lane)
        else:
            lane.owed = 0.0

    def promise(
        self, weights: dict[str, float], floors: dict[str, float], other_weight: float
    ) -> None:
        """Other weights and floors from now on; work done so far counts as it was weighted.

        `other_weight` is that of tenants without one of their own.
        """
        self._weights, self._floors, self._other_weight = weights, floors, other_weight
        self.floored.clear()
        for lane in self:
            self._give(lane)

    def __len__(self) -> int:
        return len(self._by_tenant)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_tenant.values())

    def begin_backlog(self, lane: Lane) -> None:
        """A lane without waiting requests gets one: what it did not use is not banked."""
        others = [one.work for one in self if one.waiting]
        lane.work = max(lane.work, min(others, default=self._virtual))
        lane.owed = 0.0

    def level(self) -> None:
        """Sharing begins: work done under another policy is not paid back."""
        for lane in self:
            lane.work = 0.0
        self._virtual = 0.0

    def admit(self, lane: Lane, prompt_tokens: int) -> float:
        """A request of the lane goes to the engine; returns by how much it lowered `owed`."""
        self._virtual = max(self._virtual, lane.work)
        before = lane.owed
        self._charge(lane, prompt_tokens)
        return before - lane.owed

    def take_back(self, lane: Lane, prompt_tokens: int, lowered: float) -> None:
        """A request came back that could not start; `lowered` is what `admit` returned."""
        lane.work -= prompt_tokens / lane.weight
        for one in self.floored:
            if one.waiting and one is not lane:  # `lowered` holds its own share already
                one.owed = max(0.0, one.owed - one.floor * prompt_tokens)
        lane.owed += lowered

    def count_decodes(self, silent: Mapping[Lane, int] = MappingProxyType({})) -> None:
        """A step is over: every decode has done its work, except `silent` ones of each lane."""
        total = 0.0
        for lane in self._by_tenant.values():
            if decodes := lane.decoding - silent.get(lane, 0):
                tokens = DECODE_WORK * decodes
                total += tokens
                lane.work += tokens / lane.weight
        for one in self.floored:
            if one.waiting:
                decodes = one.decoding - silent.get(one, 0)
                owed = one.owed + one.floor * total - DECODE_WORK * decodes
                one.owed = min(max(0.0, owed), self.most_owed)

    def overdraw(self, lane: Lane, arrival_s: float, work_s: float) -> float:
        """A request of `work_s` engine seconds arrives: when the tenant's bucket covers it.

        A generic cell rate algorithm (ITU-T I.371) on engine seconds: the tenant may be
        `bucket_s` seconds of its share ahead; its share is by weight among tenants with
        requests inside, so that what idle tenants leave may be borrowed.
        """
        weights = sum(one.weight for one in self._by_tenant.values() if one.inside)
        share = lane.weight / max(weights, lane.weight)
        lane.ahead_s = max(lane.ahead_s, arrival_s) + work_s / share
        return lane.ahead_s - self._bucket_s

    def _charge(self, lane: Lane, tokens: float) -> None:
        lane.work += tokens / lane.weight
        if self.floored:
            for one in self.floored:
                if one.waiting:
                    one.owed += one.floor * tokens
            # Served beyond its floor is not held against it: the floor is a least, at any time.
            lane.owed = max(0.0, lane.owed - tokens)

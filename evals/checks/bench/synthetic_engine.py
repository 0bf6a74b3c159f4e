"""What engine does a timed tick look at? One in memory that answers at once. For `tick_bench`.

Snapshots and journal are made up ahead of time, so that what is timed is the controller. A
real engine's own answer (a look at each waiting request, HTTP, JSON) is not in it.
"""

import random
from dataclasses import replace

from serving.contracts import (
    SLO,
    Ack,
    Arrival,
    BatchState,
    Contract,
    ContractAck,
    ContractChange,
    ContractInForce,
    CostCoefficients,
    Decision,
    Envelope,
    JournalPage,
    KVState,
    Limits,
    Outcome,
    QueueState,
    ResidentPage,
    Snapshot,
)

_SLO = SLO(ttft_ms=500, tpot_ms=30)
_CLASSES = ("interactive", "conversational", "document", "batch")
_TENANTS = 16
_AFTER_S = 20.0  # from arrival to end
_MISSES = 0.3  # in troubled times
_LIMITS = Limits(256, 8192)
_EMPTY = Snapshot(
    now_s=0.0, rank=0, vllm_version="synthetic", epoch=0, policy="fcfs", params={},
    limits=_LIMITS, envelope=Envelope(256, 8192, 32_768, 40_000, 16, ("batch",)),
    controller_id="", lease_left_s=0.0, queue=QueueState(), batch=BatchState(),
    kv=KVState(total_blocks=40_000), cost=CostCoefficients(6.5e-3, 35e-6, 35e-6, 33e-9),
    length_coverage=0.9, counters=(), journal_head=0,
)  # fmt: skip


class SyntheticEngine:
    """Requests at a steady rate, a steady queue, and troubled minutes in turn with calm ones.

    Args:
        rate_rps: arrivals per second; as many leave.
        waiting: requests in the queue.
        seed: decides lengths, tenants and misses.
    """

    def __init__(self, rate_rps: float, waiting: int, seed: int) -> None:
        self._rng, self._rate_rps, self._waiting = random.Random(seed), rate_rps, waiting
        self._now_s, self._came, self._left, self._preemptions = 0.0, 0, 0, 0
        self._events: list[Arrival | Outcome] = []  # that nobody has read yet
        self._first = 0  # sequence number of the first of them
        self._snapshot = _EMPTY

    def advance(self, until_s: float, *, troubled: bool) -> None:
        """Let time pass; in troubled times requests miss and are preempted."""
        self._now_s = until_s
        self._first += len(self._events)
        self._events.clear()
        while self._came / self._rate_rps <= until_s:
            self._arrive(self._came / self._rate_rps)
        while self._left < self._came and self._left / self._rate_rps + _AFTER_S <= until_s:
            self._leave(self._left / self._rate_rps, troubled=troubled)
        self._preemptions += 3 * troubled
        self._snapshot = replace(
            self._snapshot,
            now_s=until_s,
            queue=QueueState(
                self._waiting, 500 * self._waiting, 0.02 * self._waiting, 30.0, -20.0, 0.2,
                self._waiting // 10,
            ),
            batch=BatchState(256, 250, 6, -0.01 if troubled else 0.01, self._came, 0.02),
            kv=KVState(40_000, 30_000, 38_000, self._preemptions, 900 * self._preemptions),
            journal_head=self._head,
        )  # fmt: skip

    def now(self) -> float:
        """Seconds since the start."""
        return self._now_s

    def snapshot(self) -> Snapshot:
        """As made up."""
        return self._snapshot

    def apply(self, decision: Decision) -> Ack:
        """Whatever is asked."""
        self._snapshot = replace(
            self._snapshot, epoch=decision.epoch, policy=decision.policy, limits=decision.limits,
            controller_id=decision.controller_id, lease_left_s=decision.ttl_s,
        )  # fmt: skip
        return Ack(True, decision.epoch)

    def renew(self, controller_id: str, ttl_s: float) -> Ack:  # noqa: ARG002  the protocol's
        """Granted."""
        return Ack(True, self._snapshot.epoch)

    def release(self, controller_id: str) -> Ack:  # noqa: ARG002  as above
        """Granted."""
        return Ack(True, self._snapshot.epoch)

    def contract(self) -> ContractInForce:
        """That of an engine started without one."""
        return ContractInForce(0, Contract())

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Refused: a tick never asks for it."""
        return ContractAck(False, 0, 0, f"not asked for by a tick ({change.by})")

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """What came since the last advance; a controller reads it all each time."""
        begin = cursor - self._first
        page = self._events[begin : begin + limit]
        return JournalPage(
            cursor=cursor + len(page),
            lost=0,
            arrivals=tuple(event for event in page if isinstance(event, Arrival)),
            outcomes=tuple(event for event in page if isinstance(event, Outcome)),
        )

    def inside(self, limit: int = 5000) -> ResidentPage:  # noqa: ARG002  as above
        """Nobody: a short tick does not ask."""
        return ResidentPage(self._now_s)

    @property
    def _head(self) -> int:
        return self._first + len(self._events)

    def _arrive(self, at_s: float) -> None:
        number, rng = self._came, self._rng
        self._came += 1
        tokens = 1 + int(rng.lognormvariate(6.5, 0.9))
        self._events.append(Arrival(
            self._head, f"r{number}", at_s, f"t{number % _TENANTS}",
            _CLASSES[number % len(_CLASSES)], _SLO, tokens, 400,
        ))  # fmt: skip

    def _leave(self, arrival_s: float, *, troubled: bool) -> None:
        number, missed = self._left, troubled and self._rng.random() < _MISSES
        self._left += 1
        self._events.append(Outcome(
            self._head, f"r{number}", arrival_s, arrival_s + _AFTER_S,
            f"t{number % _TENANTS}", _CLASSES[number % len(_CLASSES)], _SLO, 700, 200, 0.1, 0.3,
            0.05 if missed else 0.02, _AFTER_S, not missed, "tpot" if missed else "", "stop",
            "slide", 1,
        ))  # fmt: skip

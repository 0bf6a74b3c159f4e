"""An engine in memory that keeps the protocol's promises: epochs, one owner, a lease."""

from dataclasses import dataclass, field, replace

from serving.contracts import (
    PERSON,
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
    Parts,
    QueueState,
    ResidentPage,
    ResidentRequest,
    Snapshot,
    Stopped,
    TenantCounters,
    TenantLoad,
)
from serving.contracts.settings import EngineSettings, judge_change
from serving.engines.protocol import EngineUnavailable

STOCK = Limits(max_active_requests=64, token_budget=2048)
ENVELOPE = Envelope(64, 2048, 4096, 1000, 16, sheddable=("batch",))


@dataclass
class FakeEngine:
    """Set `now_s`, `queue`, `batch`, `kv`, `events`, `held`, `down` from the test."""

    now_s: float = 0.0
    down: bool = False
    queue: QueueState = field(default_factory=QueueState)
    batch: BatchState = field(default_factory=BatchState)
    kv: KVState = field(default_factory=KVState)
    events: list[Arrival | Outcome] = field(default_factory=list)
    held: tuple[ResidentRequest, ...] = ()
    applied: list[Decision] = field(default_factory=list)
    epoch: int = 0
    policy: str = "fcfs"
    params: dict[str, float] = field(default_factory=dict)
    limits: Limits = STOCK
    owner: str = ""
    lease_until_s: float = 0.0
    stopped: Stopped | None = None
    held_contract: ContractInForce = field(default_factory=lambda: ContractInForce(0, Contract()))
    started_s: float = 0.0
    parts: Parts = field(default_factory=dict)
    counters: tuple[TenantCounters, ...] = ()
    loads: tuple[TenantLoad, ...] = ()

    def _tick(self) -> None:
        if self.down:
            raise EngineUnavailable("fake engine is down")
        if self.owner and self.now_s >= self.lease_until_s:
            self._default()

    def _default(self) -> None:
        self.owner, self.policy, self.params, self.limits = "", "fcfs", {}, STOCK
        self.parts = {}
        self.epoch += 1

    def now(self) -> float:
        return self.now_s

    def close(self) -> None:
        """As LiveEngine has it; nothing is open."""

    def snapshot(self) -> Snapshot:
        self._tick()
        return Snapshot(
            now_s=self.now_s,
            rank=0,
            vllm_version="fake",
            epoch=self.epoch,
            policy=self.policy,
            params=dict(self.params),
            limits=self.limits,
            envelope=ENVELOPE,
            controller_id=self.owner,
            lease_left_s=max(0.0, self.lease_until_s - self.now_s) if self.owner else 0.0,
            queue=self.queue,
            batch=self.batch,
            kv=self.kv,
            cost=CostCoefficients(0.005, 3e-5, 3e-5),
            length_coverage=None,
            counters=self.counters,
            loads=self.loads,
            journal_head=len(self.events),
            stopped=self.stopped,
            contract_epoch=self.held_contract.epoch,
            started_s=self.started_s,
        )

    def _refusal(self, controller_id: str) -> Ack | None:
        if self.stopped is not None:
            return Ack(False, self.epoch, f"stopped by {self.stopped.by}")
        if controller_id.startswith(PERSON):
            return None
        if self.owner and self.owner != controller_id:
            return Ack(False, self.epoch, f"owned by {self.owner}")
        return None

    def apply(self, decision: Decision) -> Ack:
        self._tick()
        if refused := self._refusal(decision.controller_id):
            return refused
        if decision.epoch <= self.epoch:
            return Ack(False, self.epoch, f"epoch {decision.epoch} is not after {self.epoch}")
        self.applied.append(decision)
        self.owner, self.epoch = decision.controller_id, decision.epoch
        self.policy, self.params = decision.policy, dict(decision.params)
        self.limits = replace(decision.limits)
        self.lease_until_s = self.now_s + decision.ttl_s
        return Ack(True, self.epoch)

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        self._tick()
        if self.owner != controller_id:
            return Ack(False, self.epoch, f"no lease of {controller_id}")
        self.lease_until_s = self.now_s + ttl_s
        self.parts = self.parts if parts is None else parts
        return Ack(True, self.epoch)

    def release(self, controller_id: str) -> Ack:
        self._tick()
        if self.owner != controller_id:
            return Ack(False, self.epoch, f"no lease of {controller_id}")
        self._default()
        return Ack(True, self.epoch)

    def stop(self, by: str, reason: str = "") -> Ack:
        self._tick()
        if self.owner:
            self._default()
        self.stopped = Stopped(by, self.now_s, reason)
        return Ack(True, self.epoch)

    def start(self, by: str) -> Ack:
        self._tick()
        self.stopped = None
        return Ack(True, self.epoch)

    def contract(self) -> ContractInForce:
        self._tick()
        return self.held_contract

    def apply_contract(self, change: ContractChange) -> ContractAck:
        self._tick()
        ack, settings = judge_change(self.held_contract, change, EngineSettings())
        if ack.accepted and not change.check_only:
            self.held_contract = ContractInForce(
                change.epoch, settings.contract, since_s=self.now_s, by=change.by
            )
        return ack

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        self._tick()
        page = self.events[cursor : cursor + limit]
        return JournalPage(
            cursor=cursor + len(page),
            lost=0,
            arrivals=tuple(e for e in page if isinstance(e, Arrival)),
            outcomes=tuple(e for e in page if isinstance(e, Outcome)),
        )

    def inside(self, limit: int = 5000) -> ResidentPage:
        self._tick()
        return ResidentPage(self.now_s, self.held[:limit], len(self.held[limit:]))

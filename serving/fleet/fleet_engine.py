"""How does one controller drive many replicas? The Engine protocol over all that are there.

Used wherever a single engine is. Every call reaches all replicas, in parallel and within a time
limit. What a replica does between calls is its own matter: each has its own lease, and falls back
to its default when the controller is silent.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from serving.contracts import (
    Ack,
    Contract,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    Parts,
    ResidentPage,
    Snapshot,
)
from serving.engines.asked import in_time_s
from serving.engines.protocol import Engine, EngineUnavailable, RemoteEngine
from serving.fleet.ask_all import Switchboard
from serving.fleet.fleet_journal import FleetJournal, read_news
from serving.fleet.in_force import lack_contract, lack_decision
from serving.fleet.merged import merge_acks, merge_contract_acks, merge_shots, named
from serving.fleet.replicas import Discovery
from serving.fleet.tenant_parts import TenantParts

T = TypeVar("T")
LIMIT_S = 5.0
_LOG = logging.getLogger(__name__)


class FleetEngine:
    """All replicas that a `Discovery` finds, as one engine. Thread-safe.

    One that is away is named in every answer, and the others go on. It gets what it lacks at the
    first snapshot that it answers: the contract that is in force on the others, and the decision
    that this object applied, as long as any replica still has that. An object that applied
    nothing writes nothing.

    Args:
        discovery: finds them; asked at every call.
        limit_s: how long the replicas are waited for in one call; of a lease at most a third, as
            `LiveEngine` does. One that is silent for longer counts as away, and is no longer
            waited for until it answers.
    """

    def __init__(self, discovery: Discovery, limit_s: float = LIMIT_S) -> None:
        self._discovery, self._limit_s = discovery, limit_s
        self._board, self._lock = Switchboard(), threading.RLock()
        self._journal = FleetJournal()
        self._began_s: float | None = None
        self._by_load: list[str] = []  # as of the last snapshot, the most loaded first
        self._away: Collection[str] = ()  # as of the last snapshot
        self._writes = False
        self._decision: Decision | None = None
        self._refused: dict[str, int] = {}  # epoch of the decision that a replica would not take
        self._overdue: tuple[str, ...] = ()
        self._divider, self._terms = TenantParts(), ContractInForce(-1, Contract())
        self._parts: Mapping[str, Parts] = {}

    def now(self) -> float:
        """Seconds on the clock of one of them; their clocks have to agree."""
        with self._lock:
            return next((e.now() for e in self._discovery.replicas().values()), time.time())

    def snapshot(self) -> Snapshot:
        """The state of all that answer, as one; `away` names the others."""
        with self._lock:
            began_s, place = self._began_s, self._journal.place
            news, away = self._ask(lambda name, e: read_news(name, e, place(name), began_s))
            shots = {name: one.shot for name, one in news.items()}
            if began_s is None:
                self._began_s = max(shot.now_s for shot in shots.values())
            self._journal.take(news)
            self._by_load = sorted(shots, key=lambda name: _load(shots[name]), reverse=True)
            self._say(away)
            if self._writes:
                self._bring_up(shots)
            self._parts = {} if self._decision is None else self._divide(shots)
            ours = "" if self._decision is None else self._decision.controller_id
            return merge_shots(shots, away, ours, self._journal.head)

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force on all; accepted if any replica accepts it."""
        with self._lock:
            ack = merge_acks(*self._ask(lambda _, e: e.apply(decision), decision.ttl_s))
            if ack.accepted:
                self._writes, self._decision, self._overdue = True, decision, ()
                self._refused.clear()
            return ack

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend the leases; accepted if any replica has one.

        Each replica gets its part of the tenants' terms, or `parts` where they are given.
        Refused, too, when a replica is back whose own epoch has grown meanwhile: the next
        decision, whose epoch is above all, brings it in step.
        """
        with self._lock:
            told = self._parts
            ack = merge_acks(*self._ask(
                lambda name, e: e.renew(controller_id, ttl_s, parts or told.get(name)), ttl_s
            ))  # fmt: skip
            if ack.accepted and self._overdue:
                overdue = dict.fromkeys(self._overdue, "its lease ran out, apply one to all")
                return Ack(False, ack.epoch, "; ".join(named(overdue, "needs a new decision")))
            return ack

    def release(self, controller_id: str) -> Ack:
        """Give the leases back; accepted if any replica had one."""
        with self._lock:
            self._decision, self._overdue = None, ()
            return merge_acks(*self._ask(lambda _, e: e.release(controller_id)))

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch, on all; accepted only if every replica is there and stops."""
        with self._lock:
            return self._by_all(lambda e: e.stop(by, reason), "it is not stopped")

    def start(self, by: str) -> Ack:
        """Let decisions in again, on all; accepted only if every replica is there."""
        with self._lock:
            return self._by_all(lambda e: e.start(by), "it may be stopped still")

    def contract(self) -> ContractInForce:
        """The contract in force; of replicas that differ the newest."""
        with self._lock:
            held, _ = self._ask(lambda _, e: e.contract())
            return max(held.values(), key=lambda one: one.epoch)

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force on all, or on none where one that answers refuses it.

        Those that are away get it when they are back.
        """
        with self._lock:
            trial = replace(change, check_only=True)
            ack = merge_contract_acks(*self._ask(lambda _, e: e.apply_contract(trial)))
            if change.check_only or not ack.accepted:
                return ack
            self._writes = True
            return merge_contract_acks(*self._ask(lambda _, e: e.apply_contract(change)))

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on, up to the last snapshot.

        The oldest event kept is the first one after this object's first snapshot.
        """
        with self._lock:
            if self._began_s is None:
                self.snapshot()
            return self._journal.page(cursor, limit)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests that the most loaded replica holds, with its name.

        A simulation replays one engine: the one where a change matters most.
        """
        with self._lock:
            if not self._by_load:
                self.snapshot()
            away: dict[str, str] = {}
            for name in self._by_load:
                pages, missing = self._ask_some([name], lambda _, e: e.inside(limit))
                if name in pages:
                    return replace(pages[name], replica=name)
                away |= missing
            raise EngineUnavailable("; ".join(named(away, "is away")))

    def close(self) -> None:
        """Let the threads end."""
        self._board.close()

    def _ask(
        self, call: Callable[[str, Engine], T], lease_s: float = math.inf
    ) -> tuple[dict[str, T], dict[str, str]]:
        """Answers of all by name, at least one, and why there is none from the others.

        Raises:
            EngineUnavailable: not one answers, or there is none.
        """
        self._board.connect(self._discovery.replicas())
        answers, away = self._ask_some(self._board.names, call, lease_s)
        if not answers and not away:
            raise EngineUnavailable("the fleet has no replicas: is any server running?")
        if not answers:
            reasons = "; ".join(named(away, "is away"))
            raise EngineUnavailable(f"none of {len(away)} replicas answers: {reasons}")
        return answers, away

    def _by_all(self, call: Callable[[RemoteEngine], Ack], otherwise: str) -> Ack:
        # People's commands are for servers; engines in virtual time have none.
        acks, away = self._ask(lambda _, e: call(cast(RemoteEngine, e)))
        ack = merge_acks(acks, {name: f"{why} ({otherwise})" for name, why in away.items()})
        return replace(ack, accepted=not away and all(one.accepted for one in acks.values()))

    def _ask_some(
        self,
        names: Collection[str],
        call: Callable[[str, Engine], T],
        lease_s: float = math.inf,
    ) -> tuple[dict[str, T], dict[str, str]]:
        return self._board.ask(names, call, min(self._limit_s, in_time_s(lease_s)))

    def _bring_up(self, shots: Mapping[str, Snapshot]) -> None:
        """Give those that lack it the contract and the decision in force on the others."""
        newest, behind = lack_contract(shots)
        if behind:
            held, _ = self._ask_some([newest], lambda _, e: e.contract())
            for one in held.values():
                self._hand_on(one, behind)
        if (decision := self._decision) is None:
            return
        lacking = lack_decision(shots, decision)
        self._overdue = lacking.overdue
        behind = [n for n in lacking.behind if self._refused.get(n) != decision.epoch]
        if behind:
            given, _ = self._ask_some(behind, lambda _, e: e.apply(decision), decision.ttl_s)
            self._refused |= {n: decision.epoch for n, ack in given.items() if not ack.accepted}
            taken = [name for name, ack in given.items() if ack.accepted]
            _tell(taken, f"under decision {decision.epoch}")

    def _divide(self, shots: Mapping[str, Snapshot]) -> Mapping[str, Parts]:
        """The replicas' parts of the contract that is in force."""
        if self._terms.epoch != max(shot.contract_epoch for shot in shots.values()):
            self._terms = self.contract()
        return self._divider.look(self._terms.contract, shots)

    def _hand_on(self, held: ContractInForce, names: Collection[str]) -> None:
        # API keys do not show: a replica has those of the contract that it started with.
        change = ContractChange(held.contract, held.epoch, held.by, keep_keys=True)
        acks, _ = self._ask_some(names, lambda _, e: e.apply_contract(change))
        taken = [name for name, ack in acks.items() if ack.accepted]
        _tell(taken, f"under contract {held.epoch}")

    def _say(self, away: Mapping[str, str]) -> None:
        """Log who has gone and who is back since the last snapshot."""
        for line in named({n: why for n, why in away.items() if n not in self._away}, "is away"):
            _LOG.warning("%s", line)
        _tell([name for name in self._away if name in self._by_load], "back")
        self._away = away.keys()


def _tell(names: Collection[str], what: str) -> None:
    if names:
        _LOG.warning("replica %s: %s", ", ".join(names), what)


def _load(shot: Snapshot) -> tuple[float, int]:
    """What waits, in seconds of prefill, and what runs."""
    return shot.queue.queued_prefill_s, shot.queue.waiting + shot.batch.running

"""What has happened since the last look? Follows one engine for both horizons.

Reads snapshots and the journal, feeds `Feedback` and the ledger, and collects what
the twin needs to know of the engine. Thread-safe: the long horizon may look while
the short one ticks. Called by the graphs.
"""

import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from hmas_agents.config import Config
from hmas_agents.engine_view import count_lost
from hmas_agents.feedback import Feedback
from hmas_agents.ledger import Ledger
from hmas_agents.situation import Expected, Situation
from hmas_agents.states import LongState, OperatorChange, ShortState
from serving.contracts import (
    SLO_CLASSES,
    Contract,
    ContractInForce,
    JournalPage,
    ResidentPage,
    Snapshot,
)
from serving.contracts.settings import EngineSettings
from serving.engines.protocol import Engine
from serving.engines.ranks import rank_count

PAGE_EVENTS = 5000
MAX_INSIDE = 5000
MAX_WINDOW = 3000
MAX_SERVED = 2000


class EngineWatch:
    """Follows one engine from the moment it is first looked at.

    Attributes:
        arrivals: requests that came in since then.
        expected: announced changes of traffic, for the twin.
        told: those that operators have announced in words.
        changes: all that operators have told, for the policy agent.
    """

    def __init__(self, engine: Engine, config: Config, ledger: Ledger | None) -> None:
        self._engine, self._config, self._ledger = engine, config, ledger
        self._feedback = Feedback(config)
        self._lock = threading.Lock()
        self._cursor: int | None = None
        self._held: tuple[tuple[float, int], ContractInForce] | None = None
        self.arrivals = 0
        self.expected: tuple[Expected, ...] = ()
        self.told: tuple[Expected, ...] = ()
        self.changes: tuple[OperatorChange, ...] = ()

    def look(self) -> tuple[Snapshot, ShortState]:
        """The engine now, after taking in everything since the last look.

        Raises:
            EngineUnavailable: nothing is lost, the next look reads on from the same place.
        """
        with self._lock:
            snapshot = self._engine.snapshot()
            if self._cursor is None or snapshot.journal_head < self._cursor:
                # First look, or the engine restarted: only what comes from here on.
                self._cursor = snapshot.journal_head if self._cursor is None else 0
            while True:
                page = self._engine.journal(self._cursor, PAGE_EVENTS)
                self._take(snapshot, page)
                self._cursor = page.cursor
                if len(page.arrivals) + len(page.outcomes) < PAGE_EVENTS:
                    return snapshot, self._weighted(snapshot, self._feedback.short_state())

    def situation(self) -> Situation:
        """A fresh look for the long horizon. Raises EngineUnavailable.

        The twin replays one engine core: of N data-parallel ranks, which vLLM's API server
        loads evenly, the window's requests are every N-th.
        """
        snapshot, _ = self.look()
        inside = _not_after(self._engine.inside(MAX_INSIDE), snapshot.now_s)
        twin, ranks = self._config.twin, rank_count(snapshot)
        with self._lock:
            held = self._contract(snapshot)
            window, span_s = self._feedback.recent_requests(twin.window_s, MAX_WINDOW * ranks)
            return Situation(
                snapshot=snapshot,
                state=replace(
                    self._feedback.long_state(),
                    told=self.changes,
                    **_terms(held.contract, self._config.own_tenants),
                ),
                requests=window[::ranks],
                span_s=span_s,
                # Each request brings its own targets, whatever the contract says by now.
                settings=EngineSettings(
                    contract=held.contract,
                    slo_scale=held.slo_scale,
                    max_wait_s=snapshot.envelope.max_wait_s,
                    bucket_s=snapshot.envelope.bucket_s,
                ),
                inside=inside,
                served=self._feedback.served(MAX_SERVED),
                own_tenants=self._config.own_tenants,
                expected=self.expected + self.told,
            )

    def long_state(self) -> LongState:
        """The last minutes, as of the last look."""
        with self._lock:
            return self._feedback.long_state()

    def alarms(self) -> tuple[str, ...]:
        """Drift alarms in force."""
        with self._lock:
            return self._feedback.alarms()

    def realised(self, since_s: float, until_s: float) -> tuple[float, int] | None:
        """Attainment and number of the requests that [since, until) concerned."""
        with self._lock:
            return self._feedback.realised(since_s, until_s)

    def rate(self, tenant: str | None, slo_class: str | None, window_s: float) -> float:
        """Requests per second of a tenant and a class (None: of all), as of the last look."""
        with self._lock:
            return self._feedback.rate(tenant, slo_class, window_s)

    def _weighted(self, snapshot: Snapshot, state: ShortState) -> ShortState:
        """The state with what the tenants weigh."""
        contract = self._contract(snapshot).contract
        weights = {name: contract.terms_of(name).weight for name in state.requests_by_tenant}
        return replace(state, weight_by_tenant=weights)

    def _contract(self, snapshot: Snapshot) -> ContractInForce:
        """In force; read when it has changed, or the engine has started anew."""
        of = snapshot.started_s, snapshot.contract_epoch
        if self._held is None or self._held[0] != of:
            self._held = of, self._engine.contract()
        return self._held[1]

    def _take(self, snapshot: Snapshot, page: JournalPage) -> None:
        self._feedback.observe(snapshot, page)
        count_lost(page.lost)
        self.arrivals += len(page.arrivals)
        if self._ledger is not None and page.outcomes:
            self._ledger.record_outcomes(page.outcomes)


def _terms(contract: Contract, own: Collection[str]) -> dict[str, Any]:
    """What of a contract is not as in one that promises nobody anything of its own."""
    tenants = {name: terms for name, terms in contract.tenants.items() if name not in own}
    classes = contract.classes
    targets = {name: contract.slo_of(name) for name in classes}
    return {
        "weights": {name: terms.weight for name, terms in tenants.items() if terms.weight != 1},
        "class_weights": {n: terms.weight for n, terms in classes.items() if terms.weight != 1},
        "floors": {name: terms.floor for name, terms in tenants.items() if terms.floor},
        "targets": {n: slo for n, slo in targets.items() if slo != SLO_CLASSES.get(n)},
    }


def _not_after(page: ResidentPage, now_s: float) -> ResidentPage:
    """The page as of `now_s`: it is asked for after the snapshot, and a live engine goes on.

    What happened in between happens now, since a simulation begins with nothing in its future.
    """

    def by_now(at_s: float | None) -> float | None:
        return None if at_s is None else min(at_s, now_s)

    requests = tuple(
        replace(
            request,
            arrival_s=min(request.arrival_s, now_s),
            admitted_s=by_now(request.admitted_s),
            first_token_s=by_now(request.first_token_s),
        )
        for request in page.requests
    )
    return replace(page, now_s=now_s, requests=requests)

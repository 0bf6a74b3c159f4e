"""What has happened since the last look? Follows one engine for both horizons.

Reads snapshots and the journal, feeds `Feedback` and the ledger, and collects what
the twin needs to know of the engine. Thread-safe: the long horizon may look while
the short one ticks. Called by the graphs.
"""

import threading
from dataclasses import dataclass

from hmas_agents.config import Config
from hmas_agents.feedback import Feedback
from hmas_agents.ledger import Ledger
from hmas_agents.states import LongState, ShortState
from serving.contracts import SLO, JournalPage, Snapshot, TraceRequest
from serving.engines.protocol import Engine
from serving.engines.ranks import rank_count
from serving.settings import EngineSettings

PAGE_EVENTS = 5000
MAX_CLASSES = 64


@dataclass(frozen=True, slots=True)
class Situation:
    """What the long horizon decides from: the state, and the last window to replay.

    The twin replays one engine core: of N data-parallel ranks, which vLLM's API server
    loads evenly, `requests` are every N-th.
    """

    snapshot: Snapshot
    state: LongState
    requests: list[TraceRequest]
    settings: EngineSettings


class Observer:
    """Follows one engine from the moment it is first looked at."""

    def __init__(self, engine: Engine, config: Config, ledger: Ledger | None) -> None:
        self._engine, self._config, self._ledger = engine, config, ledger
        self._feedback = Feedback(config)
        self._lock = threading.Lock()
        self._cursor: int | None = None
        self._slos: dict[str, SLO] = {}

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
                    return snapshot, self._feedback.short_state()

    def situation(self) -> Situation:
        """A fresh look for the long horizon. Raises EngineUnavailable."""
        snapshot, _ = self.look()
        twin, ranks = self._config.twin, rank_count(snapshot)
        with self._lock:
            return Situation(
                snapshot,
                self._feedback.long_state(),
                self._feedback.recent_requests(twin.window_s, twin.max_requests * ranks)[::ranks],
                # The engine's own settings as far as requests show them: a class's targets
                # arrive with each request, already scaled.
                EngineSettings(slo_classes=dict(self._slos)),
            )

    def alarms(self) -> tuple[str, ...]:
        """Drift alarms in force."""
        with self._lock:
            return self._feedback.long_state().alarms

    def realised(self, since_s: float, until_s: float) -> tuple[float, int] | None:
        """Attainment and number of the requests that arrived in [since, until)."""
        with self._lock:
            return self._feedback.realised(since_s, until_s)

    def _take(self, snapshot: Snapshot, page: JournalPage) -> None:
        self._feedback.observe(snapshot, page)
        for arrival in page.arrivals:
            if arrival.slo_class in self._slos or len(self._slos) < MAX_CLASSES:
                self._slos[arrival.slo_class] = arrival.slo
        if self._ledger is not None and page.outcomes:
            self._ledger.record_outcomes(page.outcomes)

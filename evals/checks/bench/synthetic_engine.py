"""What engine does a timed tick look at? One at rest whose state is made up. For `tick_bench`.

Snapshots and journal are made up ahead of time, so that what is timed is the controller. A
real engine's own answer (a look at each waiting request, HTTP, JSON) is not in it.
"""

import random
from dataclasses import replace

from evals.machines.profile_file import load_profile
from serving.contracts import (
    SLO,
    Arrival,
    BatchState,
    JournalPage,
    KVState,
    Outcome,
    QueueState,
    Snapshot,
)
from serving.contracts.contract import with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine

_SLO = SLO(ttft_ms=500, tpot_ms=30)
_CLASSES = ("interactive", "conversational", "document", "batch")
_TENANTS = 16
_AFTER_S = 20.0  # from arrival to end
_MISSES = 0.3  # in troubled times


class SyntheticEngine(CompiledEngine):
    """Requests at a steady rate, a steady queue, and troubled minutes in turn with calm ones.

    It takes decisions, and serves nothing.
    """

    def __init__(self, rate_rps: float, waiting: int, seed: int) -> None:
        settings = EngineSettings(contract=with_classes({}, sheddable=["batch"]))
        super().__init__(load_profile("a100_llama_8b"), settings)
        self._rng, self._rate_rps, self._waiting = random.Random(seed), rate_rps, waiting
        self._came, self._left, self._preemptions = 0, 0, 0
        self._events: list[Arrival | Outcome] = []  # that nobody has read yet
        self._first = 0  # sequence number of the first of them

    def advance(self, until_s: float, *, troubled: bool) -> None:
        """Let time pass; in troubled times first tokens are late, and requests are preempted."""
        self._now_s = until_s
        self._first += len(self._events)
        self._events.clear()
        while self._came / self._rate_rps <= until_s:
            self._arrive(self._came / self._rate_rps)
        while self._left < self._came and self._left / self._rate_rps + _AFTER_S <= until_s:
            self._leave(self._left / self._rate_rps, troubled=troubled)
        self._preemptions += 3 * troubled

    def snapshot(self) -> Snapshot:
        """The decision in force, over a state that is made up.

        What waits can be served in time, but not behind the whole queue: then the rule agent
        `prefill` acts where first tokens are late.
        """
        waiting = self._waiting
        return replace(
            super().snapshot(),
            queue=QueueState(waiting, 500 * waiting, 0.02 * waiting, 30.0, 0.1, 0.01 * waiting),
            batch=BatchState(256, 250, 6, 0.01, self._came, 0.02),
            kv=KVState(28_000, 21_000, 27_000, self._preemptions, 900 * self._preemptions),
            journal_head=self._head,
        )

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
            f"t{number % _TENANTS}", _CLASSES[number % len(_CLASSES)], _SLO, 700, 200, 0.1,
            0.9 if missed else 0.3, 0.02, _AFTER_S, not missed,
            "ttft_execution" if missed else "", "stop", "slide", 1,
        ))  # fmt: skip

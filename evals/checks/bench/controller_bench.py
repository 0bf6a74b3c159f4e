"""What do a short tick and a long decision cost the controller's core? `hmas bench tick|decision`.

The whole tick, as `graphs.control_loop` makes it: state from the journal, drift alarms, rule
agents, arbiter, LangGraph, tools, and the ledger's writes. CPU time is that of the process, all its
threads together; wall time is what the next tick would wait for. The engine is at rest, its
snapshots and journal made up ahead of time, so that what is timed is the controller. A real
engine's own answer (a look at each waiting request, HTTP, JSON) is not in it.

Whole decisions of the long horizon, beside a simulated engine: the look at the engine, proposals,
the twin's candidates, futures and forecasts, and the choice. The model is not asked. The twin
computes in this process, where a live controller has one for that.
"""

import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.machines.profile_file import load_profile
from graphs.control_loop import ControlLoop
from hmas_agents.collector import rare_collections
from hmas_agents.config import load_config
from hmas_agents.records import DecisionRecord
from hmas_agents.twin.process import InProcess
from serving.contracts import (
    SLO,
    Arrival,
    BatchState,
    JournalPage,
    KVState,
    Outcome,
    QueueState,
    Snapshot,
    TraceRequest,
)
from serving.contracts.contract import with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.branches import warm_up
from serving.engines.compiled import CompiledEngine

TARGET_MS = 20.0  # CPU time at p99
_WARM_UP_S = 330.0  # until every window is full
_TROUBLE_S = 60.0  # calm and troubled times take turns
_FIGURES = ("cpu_p50_ms", "wall_p50_ms", "cpu_p99_ms", "wall_p99_ms")
_SETTINGS: dict[str, object] = {
    "control.mode": "act", "control.ttl_s": 1e4, "model.enabled": False, "twin.enabled": False,
}  # fmt: skip
Result = dict[str, Any]
_SLO = SLO(ttft_ms=500, tpot_ms=30)
_CLASSES = ("interactive", "conversational", "document", "batch")
_TENANTS = 16
_AFTER_S = 20.0  # from arrival to end
_MISSES = 0.3  # in troubled times
TARGET_S = 1.0
_PERIOD_S = 10.0  # of decisions
_BEGIN_S = 60.0
_TWIN = ("work_s", "candidates", "left_out", "futures", "forecasts", "horizon_s")


def time_ticks(
    rate_rps: float, waiting: int, ticks: int, seed: int,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Result:  # fmt: skip
    """Times of so many ticks after a warm-up, in milliseconds, beside a `SyntheticEngine`."""
    config = load_config(None, _SETTINGS)
    period_s = config.control.short_tick_s
    engine = SyntheticEngine(rate_rps, waiting, seed)
    warm_up = math.ceil(_WARM_UP_S / period_s)
    acted: list[bool] = []
    rows: list[tuple[float, float, bool]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        loop = ControlLoop(engine, config, path, on_decision=lambda _: acted.append(True))
        with loop, rare_collections():
            for number in range(warm_up + ticks):
                now_s = number * period_s
                engine.advance(now_s, troubled=int(now_s / _TROUBLE_S) % 2 == 1)
                acted.clear()
                cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
                loop.short_tick()
                loop._parts.watch.alarms()
                cpu_ns = time.process_time_ns() - cpu_ns
                wall_ns = time.perf_counter_ns() - wall_ns
                rows.append((cpu_ns / 1e6, wall_ns / 1e6, bool(acted)))
                on_progress(f"{rate_rps:g} req/s", number + 1, warm_up + ticks)
    times_ms, acting = np.array(rows)[warm_up:, :2], np.array(rows)[warm_up:, 2] > 0
    return {
        "rate_rps": rate_rps, "waiting": waiting, "target_ms": TARGET_MS,
        "all": _summary(times_ms), "quiet": _summary(times_ms[~acting]),
        "acting": _summary(times_ms[acting]),
    }  # fmt: skip


def _summary(times_ms: npt.NDArray[np.float64]) -> Result:
    """Percentiles by nearest rank of CPU and wall time, shape (ticks, 2)."""
    figures: Result = {"ticks": len(times_ms), **dict.fromkeys(_FIGURES)}
    if len(times_ms):
        found = np.percentile(times_ms, (50, 99), axis=0, method="inverted_cdf")
        figures |= zip(_FIGURES, found.round(3).ravel().tolist(), strict=True)
    return figures


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
        self._clock.now_s = until_s
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


@dataclass(frozen=True, slots=True)
class _Load:
    """Arrivals per second, median tokens, and requests that come at once after a minute."""

    rate_rps: float
    prompt_tokens: int
    output_tokens: int
    slo_class: str = "interactive"
    at_once: int = 0


CASES = {
    "ordinary": _Load(6.0, 600, 120),
    "long answers": _Load(3.0, 400, 2500, "conversational"),
    "5,000 waiting": _Load(3.0, 400, 1000, "conversational", at_once=5500),
}


def run_decision_bench(
    decisions: int, seed: int, on_progress: Callable[[str, int, int], None]
) -> list[Result]:
    """One result per case, in seconds."""
    warm_up()
    return [_time_case(name, decisions, seed, on_progress) for name in CASES]


def _time_case(
    name: str, decisions: int, seed: int, on_progress: Callable[[str, int, int], None]
) -> Result:
    until_s = _BEGIN_S + decisions * _PERIOD_S
    engine = CompiledEngine(load_profile("a100_llama_8b"), EngineSettings())
    config = load_config(None, {"control.mode": "act", "model.enabled": False})
    twins: list[dict[str, Any]] = []
    cpu_s: list[float] = []
    wall_s: list[float] = []
    inside: list[tuple[int, int]] = []

    def note(record: DecisionRecord) -> None:
        if record.horizon == "long":
            twins.append(record.twin)

    with ControlLoop(engine, config, None, on_decision=note, forecaster=InProcess()) as loop:

        def decide() -> None:
            if engine.now() < _BEGIN_S:
                return
            snapshot = engine.snapshot()
            inside.append((snapshot.batch.running, snapshot.queue.waiting))
            began_s, cpu_began_s = time.perf_counter(), time.process_time()
            loop.long_tick()
            cpu_s.append(time.process_time() - cpu_began_s)
            wall_s.append(time.perf_counter() - began_s)
            on_progress(name, len(cpu_s), decisions)

        loop.short_tick()
        tickers = ((config.control.short_tick_s, loop.short_tick), (_PERIOD_S, decide))
        engine.run(list(_requests(CASES[name], until_s, seed)), tickers, until_s)
    return {
        "case": name,
        "target_s": TARGET_S,
        "decisions": len(cpu_s),
        "running": _quantiles([running for running, _ in inside]),
        "waiting": _quantiles([waiting for _, waiting in inside]),
        "cpu_s": _quantiles(cpu_s),
        "wall_s": _quantiles(wall_s),
        "cpu_first_s": cpu_s[0],
        **{key: _quantiles([each[key] for each in twins]) for key in _TWIN},
    }


def _requests(load: _Load, until_s: float, seed: int) -> Iterator[TraceRequest]:
    rng = np.random.default_rng(seed)
    count = rng.poisson(load.rate_rps * until_s)
    flood_s = np.full(load.at_once, _BEGIN_S - 1.0)
    for at_s in np.sort(np.concatenate([rng.uniform(0.0, until_s, count), flood_s])):
        prompt = min(int(load.prompt_tokens * rng.lognormal(0.0, 0.7)) + 1, 8000)
        output = min(int(load.output_tokens * rng.lognormal(0.0, 0.5)) + 1, 6000)
        yield TraceRequest(float(at_s), prompt, output, "t", load.slo_class)


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    """Least, median, 99th percentile."""
    least, p50, p99 = np.quantile(values, [0.0, 0.5, 0.99])
    return {"least": float(least), "p50": float(p50), "p99": float(p99)}

"""What does a short tick cost the controller's core? `hmas bench tick`.

The whole tick, as `graphs.control_loop` makes it: state from the journal, drift alarms, rule
agents, arbiter, LangGraph, tools, and the ledger's writes. CPU time is that of the process,
all its threads together; wall time is what the next tick would wait for.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.checks.bench.synthetic_engine import SyntheticEngine
from graphs.control_loop import ControlLoop
from hmas_agents.collector import rare_collections
from hmas_agents.config import load_config

TARGET_MS = 20.0  # CPU time at p99
_WARM_UP_S = 330.0  # until every window is full
_TROUBLE_S = 60.0  # calm and troubled times take turns
Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TickBenchOptions:
    """What to time."""

    rates_rps: tuple[float, ...] = (10.0, 100.0)
    waiting: int = 10_000
    ticks: int = 500
    ledger: bool = True
    seed: int = 0


def run_tick_bench(
    options: TickBenchOptions, on_progress: Callable[[str, int, int], None]
) -> list[Result]:
    """One result per rate, in milliseconds."""
    return [_time_rate(rate_rps, options, on_progress) for rate_rps in options.rates_rps]


def _time_rate(
    rate_rps: float, options: TickBenchOptions, on_progress: Callable[[str, int, int], None]
) -> Result:
    config = load_config(
        None,
        {"control.mode": "act", "control.ttl_s": 1e4, "model.enabled": False,
         "twin.enabled": False},
    )  # fmt: skip
    period_s = config.control.short_tick_s
    engine = SyntheticEngine(rate_rps, options.waiting, options.seed)
    acted: list[bool] = []
    quiet, acting = _Times(), _Times()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite" if options.ledger else None
        loop = ControlLoop(engine, config, path, on_decision=lambda _: acted.append(True))
        with loop, rare_collections():
            warm_up = math.ceil(_WARM_UP_S / period_s)
            for number in range(warm_up + options.ticks):
                now_s = number * period_s
                engine.advance(now_s, troubled=int(now_s / _TROUBLE_S) % 2 == 1)
                acted.clear()
                cpu_ns, wall_ns = time.process_time_ns(), time.perf_counter_ns()
                loop.short_tick()
                loop._parts.watch.alarms()
                cpu_ns = time.process_time_ns() - cpu_ns
                wall_ns = time.perf_counter_ns() - wall_ns
                if number >= warm_up:
                    (acting if acted else quiet).add(cpu_ns, wall_ns)
                on_progress(f"{rate_rps:g} req/s", number + 1, warm_up + options.ticks)
    both = _Times(quiet.cpu_ms + acting.cpu_ms, quiet.wall_ms + acting.wall_ms)
    return {
        "rate_rps": rate_rps,
        "waiting": options.waiting,
        "ledger": options.ledger,
        "target_ms": TARGET_MS,
        "all": both.summary(),
        "quiet": quiet.summary(),
        "acting": acting.summary(),
    }


class _Times:
    """Durations of ticks in milliseconds."""

    def __init__(self, cpu_ms: Sequence[float] = (), wall_ms: Sequence[float] = ()) -> None:
        self.cpu_ms, self.wall_ms = list(cpu_ms), list(wall_ms)

    def add(self, cpu_ns: int, wall_ns: int) -> None:
        self.cpu_ms.append(cpu_ns / 1e6)
        self.wall_ms.append(wall_ns / 1e6)

    def summary(self) -> Result:
        return {
            "ticks": len(self.cpu_ms),
            "cpu_p50_ms": _percentile(self.cpu_ms, 0.5),
            "cpu_p99_ms": _percentile(self.cpu_ms, 0.99),
            "wall_p50_ms": _percentile(self.wall_ms, 0.5),
            "wall_p99_ms": _percentile(self.wall_ms, 0.99),
        }


def _percentile(values: Sequence[float], q: float) -> float | None:
    """By nearest rank."""
    ordered = sorted(values)
    return round(ordered[math.ceil(q * len(ordered)) - 1], 3) if ordered else None

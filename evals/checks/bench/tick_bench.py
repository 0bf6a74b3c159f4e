"""What does a short tick cost the controller's core? `hmas bench tick`.

The whole tick, as `graphs.control_loop` makes it: state from the journal, drift alarms, rule
agents, arbiter, LangGraph, tools, and the ledger's writes. CPU time is that of the process,
all its threads together; wall time is what the next tick would wait for.
"""

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evals.checks.bench.synthetic_engine import SyntheticEngine
from graphs.control_loop import ControlLoop
from hmas_agents.collector import rare_collections
from hmas_agents.config import load_config

TARGET_MS = 20.0  # CPU time at p99
_WARM_UP_S = 330.0  # until every window is full
_TROUBLE_S = 60.0  # calm and troubled times take turns
_FIGURES = ("cpu_p50_ms", "wall_p50_ms", "cpu_p99_ms", "wall_p99_ms")
_SETTINGS: dict[str, object] = {
    "control.mode": "act", "control.ttl_s": 1e4, "model.enabled": False, "twin.enabled": False,
}  # fmt: skip
Result = dict[str, Any]


def time_ticks(
    rate_rps: float, waiting: int, ticks: int, *, ledger: bool, seed: int,
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
        path = Path(folder) / "ledger.sqlite" if ledger else None
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
        "rate_rps": rate_rps, "waiting": waiting, "ledger": ledger, "target_ms": TARGET_MS,
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

"""What does a decision of the long horizon cost the controller's core? `hmas bench decision`.

Whole decisions of the loop, beside a simulated engine: the look at the engine, proposals, the
twin's candidates, futures and forecasts, and the choice. The model is not asked. CPU time is that
of the process; the twin computes in it, where a live controller has a process for that. Wall time
has in it what else runs on the machine.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evals.machines.profile_file import load_profile
from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.records import DecisionRecord
from hmas_agents.twin.process import InProcess
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.branches import warm_up
from serving.engines.compiled import CompiledEngine

TARGET_S = 1.0
_PERIOD_S = 10.0  # of decisions
_BEGIN_S = 60.0
_TWIN = ("work_s", "candidates", "left_out", "futures", "forecasts", "horizon_s")
Result = dict[str, Any]


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

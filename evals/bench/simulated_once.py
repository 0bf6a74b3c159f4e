"""How long does one simulation take? Run as a script, in a process of its own.

Called by `simulator_bench` with a source tree first on PYTHONPATH, which may be an older one:
it uses nothing but `serving`, and of that what every tree has. Reads a JobFile, prints a Timing.
"""

import dataclasses
import hashlib
import json
import logging
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, TypedDict


class Timing(TypedDict):
    """One run. `digest` stands for all outcomes: equal digests, equal simulations."""

    cpu_s: float
    wall_s: float
    build_s: float
    simulated_s: float
    peak_waiting: int
    peak_rss_mb: float
    digest: str


class JobFile(TypedDict):
    """What to simulate, as plain data: `decision` is None for stock vLLM."""

    requests: list[dict[str, Any]]
    profile: dict[str, Any]
    settings: dict[str, Any]
    decision: dict[str, Any] | None


def simulate(job: JobFile) -> Timing:
    """Run the job once; a line on standard error for each request count passed."""
    from serving.contracts import CostCoefficients, Decision, Limits, TraceRequest
    from serving.engines.profile import EngineProfile
    from serving.engines.simulated import SimulatedEngine
    from serving.settings import EngineSettings

    profile = EngineProfile(**job["profile"] | {"cost": CostCoefficients(**job["profile"]["cost"])})
    requests = [TraceRequest(**request) for request in job["requests"]]
    decision = job["decision"]
    build_s = time.process_time()
    engine = SimulatedEngine(profile, EngineSettings(**job["settings"]), stock=decision is None)
    build_s = time.process_time() - build_s
    if decision is not None:
        ack = engine.apply(Decision(**decision | {"limits": Limits(**decision["limits"])}))
        if not ack.accepted:
            raise RuntimeError(f"the engine refused the decision: {ack.reason}")
    cpu_s, wall_s = time.process_time(), time.monotonic()
    outcomes = engine.run(requests, on_progress=_report())
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    rows = [dataclasses.astuple(outcome) for outcome in outcomes]
    return Timing(
        cpu_s=cpu_s, wall_s=wall_s, build_s=build_s,
        simulated_s=max(outcome.finished_s for outcome in outcomes) - requests[0].arrival_s,
        peak_waiting=peak_waiting([(o.arrival_s, o.queue_s or 0.0) for o in outcomes]),
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        digest=hashlib.sha256(repr(rows).encode()).hexdigest()[:16],
    )  # fmt: skip


def peak_waiting(waits: list[tuple[float, float]]) -> int:
    """Most requests waiting at one moment, from (arrival_s, queue_s) of each."""
    ends = [(arrival_s + queue_s, -1) for arrival_s, queue_s in waits]
    waiting = most = 0
    for _, change in sorted([(arrival_s, 1) for arrival_s, _ in waits] + ends):
        waiting += change
        most = max(most, waiting)
    return most


def _report() -> Any:
    told = 0

    def on_progress(finished: int) -> None:
        nonlocal told
        if finished >= told + 100:
            told = finished
            print(finished, file=sys.stderr, flush=True)

    return on_progress


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    logging.disable(logging.ERROR)
    print(json.dumps(simulate(json.loads(Path(sys.argv[1]).read_text()))))

"""How fast is the simulator, against an older source tree? `hmas bench simulator`.

Each run has a process of its own and is timed in that process's CPU time. With `against`, both
trees simulate the same requests in turn, and must come to the same outcomes.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from evals.arms import Arm, fixed_decision
from evals.bench.simulated_once import JobFile, Timing
from evals.workloads.scaling import Requests, scale_to_rate, span_s
from serving.contracts import Limits, TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

HERE = Path(__file__).resolve().parents[2]
_LEASE_S = 86_000.0
_ERROR_LINES = 5
Result = dict[str, Any]
OnProgress = Callable[[str, int, int], None]


class SimulatorBenchError(RuntimeError):
    """A run failed, or two trees disagree; says which."""


@dataclass(frozen=True, slots=True)
class SimulatorBenchOptions:
    """What to time.

    Attributes:
        arm: stock vLLM, or a fixed policy with or without rules.
        requests: lengths of the trace to time, from its start.
        rate_scales: multiples of the trace's own rate; above the engine's capacity, queues grow.
        rounds: runs of each tree; figures are medians.
        against: an older source tree; None times this one alone.
    """

    arm: Arm
    requests: tuple[int, ...]
    rate_scales: tuple[float, ...] = (1.0,)
    rounds: int = 3
    against: Path | None = None


def run_simulator_bench(
    options: SimulatorBenchOptions,
    trace: Requests,
    profile: EngineProfile,
    settings: EngineSettings,
    on_progress: OnProgress = lambda *_: None,
) -> list[Result]:
    """One result per trace length and rate scale; `on_progress` gets title, done, total.

    Lengths beyond the trace's are cut to it.

    Raises:
        SimulatorBenchError: a run failed, the trees' outcomes differ, or the arm cannot be timed.
    """
    if options.arm.kind not in ("stock", "fixed"):
        raise SimulatorBenchError(
            f"arm {options.arm.name!r} has more than the simulator's time in it: "
            "take vllm-fcfs or fixed-POLICY, with or without rules"
        )
    trees = {"now": HERE} | ({"before": options.against.resolve()} if options.against else {})
    return [
        {
            "arm": options.arm.name,
            "profile": profile.name,
            "rate_scale": scale,
            **_time_case(
                job_of(options.arm, _at_scale(trace[:count], scale), profile, settings),
                f"{scale:g}x", options.rounds, trees, on_progress,
            ),
        }
        for count in options.requests
        for scale in options.rate_scales
    ]  # fmt: skip


def summarise(runs: dict[str, list[Timing]], requests: int) -> Result:
    """Medians over the rounds.

    `speedup` is the median over rounds of before's CPU time by that of now in the same round.

    Raises:
        SimulatorBenchError: not all runs had the same outcomes.
    """
    digests = {name: sorted({run["digest"] for run in timings}) for name, timings in runs.items()}
    if len({digest for found in digests.values() for digest in found}) > 1:
        raise SimulatorBenchError(f"the outcomes of {requests} requests differ: {digests}")
    now = runs["now"]
    result: Result = {
        "requests": requests,
        "simulated_s": round(now[0]["simulated_s"], 1),
        "peak_waiting": now[0]["peak_waiting"],
        "outcomes": now[0]["digest"],
    }
    for name, timings in runs.items():
        cpu_s = median(run["cpu_s"] for run in timings)
        result[name] = {
            "cpu_s": round(cpu_s, 2),
            "wall_s": round(median(run["wall_s"] for run in timings), 2),
            "requests_per_s": round(requests / cpu_s, 1),
            "simulated_s_per_s": round(now[0]["simulated_s"] / cpu_s, 1),
            "build_s": round(median(run["build_s"] for run in timings), 3),
            "peak_rss_mb": round(max(run["peak_rss_mb"] for run in timings)),
        }
    if "before" in runs:
        pairs = zip(runs["before"], now, strict=True)
        speedups = [before["cpu_s"] / after["cpu_s"] for before, after in pairs]
        result["speedup"] = round(median(speedups), 3)
        result["speedup_low"] = round(min(speedups), 3)
        result["speedup_high"] = round(max(speedups), 3)
    return result


def job_of(
    arm: Arm, requests: Requests, profile: EngineProfile, settings: EngineSettings
) -> JobFile:
    """What a run reads, with stock limits but for what the arm's name says."""
    decision = None
    if arm.kind == "fixed":
        limits = Limits(profile.max_active_requests, profile.token_budget)
        decision = dataclasses.asdict(fixed_decision(arm, limits, 1, _LEASE_S))
    return JobFile(
        # What is not set is left out: an older tree may not know it.
        requests=[_set_fields(request) for request in requests],
        profile=_set_fields(profile),
        settings=settings.model_dump(mode="json", exclude_unset=True),
        decision=decision,
    )  # fmt: skip


def _set_fields(message: TraceRequest | EngineProfile) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(message)}
    return {k: v for k, v in dataclasses.asdict(message).items() if v != defaults[k]}


def _at_scale(requests: Requests, scale: float) -> Requests:
    return scale_to_rate(requests, scale * len(requests) / span_s(requests))


def _time_case(
    job: JobFile, label: str, rounds: int, trees: dict[str, Path], on_progress: OnProgress
) -> Result:
    count = len(job["requests"])
    runs: dict[str, list[Timing]] = {name: [] for name in trees}
    for turn in range(rounds):
        # Now the one first, now the other, so that neither has the quieter machine.
        for name in list(trees)[:: 1 if turn % 2 else -1]:
            title = f"{count:,} requests, {label}, {name} {turn + 1}/{rounds}"
            on_progress(title, 0, count)
            runs[name].append(_run(trees[name], job, partial(_tell, on_progress, title, count)))
    return summarise(runs, count)


def _tell(on_progress: OnProgress, title: str, count: int, finished: int) -> None:
    on_progress(title, finished, count)


def _run(tree: Path, job: JobFile, on_finished: Callable[[int], None]) -> Timing:
    script = Path(__file__).with_name("simulated_once.py")
    with tempfile.TemporaryDirectory() as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job))
        # -P: the script's own folder is not searched, so `serving` is that of the tree.
        command = [sys.executable, "-P", str(script), str(job_file)]
        environment = os.environ | {"PYTHONPATH": str(tree)}
        with subprocess.Popen(
            command, cwd=tree, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            errors: deque[str] = deque(maxlen=_ERROR_LINES)
            for line in process.stderr or ():  # the answer is one line: it fits into the pipe
                if line.strip().isdigit():
                    on_finished(int(line))
                else:
                    errors.append(line)
            answer = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SimulatorBenchError(f"the simulation in {tree} failed:\n{''.join(errors)}")
    timing: Timing = json.loads(answer.splitlines()[-1])
    return timing

"""How far is the simulator from the machine? The same requests live and simulated.

Each case of a suite runs live and is then simulated: the same requests at the same times
with the same lengths. Called by `hmas eval fidelity`.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from evals.arms import ControllerOptions, parse_arm
from evals.fidelity.comparison import Comparison, compare
from evals.fidelity.machine import OtherLoad, warning
from evals.fidelity.server import MeasuredServer
from evals.fidelity.steps import CalibrationError, Steps, steps_of
from evals.live_capacity import measure_capacity
from evals.live_runner import LiveCase, LiveOptions
from evals.live_runner import run_case as run_live_case
from evals.metrics import CaseRun
from evals.offer import offer
from evals.progress import CaseProgress
from evals.recording import RecordedEngine
from evals.scenario import Workload
from evals.sim_engine import RunnableEngine
from evals.simulated_case import SimulatedCase, run_case
from evals.suite import Suite
from serving.contracts import Outcome, Snapshot
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

_CAPACITY_S = 20.0


def compare_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    server: MeasuredServer,
    profile: EngineProfile,
    *,
    overhead_s: float,
    seed: int,
    progress: CaseProgress,
) -> list[Comparison]:
    """Run scenarios x loads x arms live, and simulate each case.

    Args:
        suite: with stock and fixed arms. Its warm-up counts like the rest.
        workloads: of the suite's scenarios.
        server: runs vLLM with a step log.
        profile: to simulate; sizes are taken from the server.
        overhead_s: added to each simulated time to first token, and to its end.
        seed: of the live prompts.
        progress: gets a bar for each case.

    Raises:
        ArmError, CapacityError, CalibrationError: the server is not fit for it.
    """
    arms = [parse_arm(name) for name in suite.arms]
    if moving := [arm.name for arm in arms if arm.kind not in ("stock", "fixed")]:
        raise CalibrationError(
            f"suite {suite.name!r}: the arm {moving[0]!r} goes its own way in each run: fidelity "
            "wants arms that stay as they are, such as 'vllm-fcfs' and 'fixed-edf+rules'"
        )
    profile = sized_as(profile, server.live.engine.snapshot())
    comparisons = []
    for workload in workloads:
        capacity_rps = _capacity(workload, server, seed, progress)
        for load, arm in product(suite.loads, arms):
            case = SimulatedCase(
                scenario=workload.scenario, load=load, arm=arm, profile=profile,
                requests=offer(workload, load * capacity_rps).requests,
                settings=suite.settings, drain_s=suite.drain_s, controller=ControllerOptions(),
            )  # fmt: skip
            comparison = _compare_case(case, server, overhead_s, seed, progress)
            comparison.result.update(trace=workload.provenance, capacity_rps=capacity_rps)
            comparisons.append(comparison)
    return comparisons


def _capacity(
    workload: Workload, server: MeasuredServer, seed: int, progress: CaseProgress
) -> float:
    bar = progress.add(f"{workload.scenario} capacity", len(workload.requests))
    rate_rps = asyncio.run(measure_capacity(
        server.live.base_url, server.live.model, workload.requests, seconds=_CAPACITY_S,
        token_seed=seed, run_id="capacity-", on_finished=partial(progress.update, bar),
    ))  # fmt: skip
    progress.done(bar, f"{workload.scenario}: capacity {rate_rps:.2f} requests/s (closed loop)")
    return rate_rps


def _compare_case(
    case: SimulatedCase, server: MeasuredServer, overhead_s: float, seed: int,
    progress: CaseProgress,
) -> Comparison:  # fmt: skip
    title = f"{case.scenario} {case.load:g}x {case.arm.name}"
    bar = progress.add(f"{title} live", len(case.requests))
    left = itertools.count(1)
    live_case = LiveCase(
        case.scenario, case.load, case.arm, case.requests, case.settings, case.drain_s,
        RecordedEngine(server.live.engine),
    )  # fmt: skip
    others = OtherLoad(server.pid)
    live = run_live_case(
        live_case, server.live, seed=seed, options=LiveOptions(case.controller),
        on_event=lambda kind, _: progress.update(bar, next(left)) if kind == "left" else None,
    )  # fmt: skip
    others_share = others.share()
    progress.done(bar, f"{title}: live")
    if line := warning(others_share):
        progress.warn(line)
    bar = progress.add(f"{title} simulated", len(case.requests))
    simulated, steps = simulate(case, partial(progress.update, bar))
    comparison = compare(
        case, live, simulated, server.steps(*_time_of(live)), steps, overhead_s=overhead_s
    )
    comparison.result["others_cpu_share"] = others_share
    error = comparison.result["error"]["attainment_points"]
    progress.done(bar, f"{title}: simulated attainment off by {error:+.1f} points")
    return comparison


def sized_as(profile: EngineProfile, snapshot: Snapshot) -> EngineProfile:
    """The profile's cost model with the batch, step and cache sizes of a running engine."""
    envelope = snapshot.envelope
    return replace(
        profile,
        max_active_requests=envelope.max_active_requests, token_budget=envelope.token_budget,
        kv_blocks=envelope.kv_blocks, block_size=envelope.block_size,
        max_model_len=envelope.max_model_len,
    )  # fmt: skip


def simulate(case: SimulatedCase, on_progress: Callable[[int], None]) -> tuple[CaseRun, Steps]:
    """Simulate a case; its steps as a live engine would have logged them, ends unset (0)."""
    from serving.engines.simulated import SimulatedEngine
    from serving.perception.cost_model import step_shape

    rows: list[tuple[float, ...]] = []

    class Logged(SimulatedEngine):
        def run(self, *args: Any, **kwargs: Any) -> list[Outcome]:
            return super().run(*args, **(kwargs | {"on_step": self._log}))

        def _log(self, output: Any) -> None:
            if output.num_scheduled_tokens:
                shape = step_shape(output.num_scheduled_tokens, self.scheduler.requests)
                rows.append((
                    0.0, shape.seconds(self.profile.cost), shape.prefill_tokens, shape.decodes,
                    shape.decode_context, shape.prefill_square,
                ))  # fmt: skip

    def build(profile: EngineProfile, settings: EngineSettings, stock: bool) -> RunnableEngine:
        return Logged(profile, settings, stock=stock)

    run = run_case(case, on_progress, build)
    return run, steps_of(rows)


def _time_of(run: CaseRun) -> tuple[float, float]:
    first_s = min(outcome.arrival_s for outcome in run.outcomes)
    return first_s, max(outcome.finished_s for outcome in run.outcomes)

"""How far is the simulator from the machine? The same requests live and simulated.

Each case of a suite runs live and is then simulated: the same requests at the same times
with the same lengths. Called by `hmas eval fidelity`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.engine import RunnableEngine
from evals.checks.fidelity.comparison import Comparison, compare
from evals.checks.fidelity.machine import OtherLoad, warning
from evals.checks.fidelity.server import MeasuredServer
from evals.live.run import LiveCase, LiveOptions, capacity_rps
from evals.live.run import run_case as run_live_case
from evals.machines.steps import CalibrationError, Steps, steps_of
from evals.progress import CaseProgress
from evals.requests.offer import Workload, offer
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import Suite
from serving.contracts import Outcome, Snapshot
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

_CAPACITY_S = 60.0


@dataclass(frozen=True, slots=True)
class Replayed:
    """A case as it went live, with the steps that it caused."""

    case: LiveCase
    run: CaseRun
    steps: Steps
    others_cpu_share: float | None
    facts: dict[str, Any]

    def simulated_on(self, profile: EngineProfile) -> SimulatedCase:
        """The same case for the simulator."""
        case = self.case
        return SimulatedCase(
            scenario=case.scenario, load=case.load, arm=parse_arm(case.arm),
            requests=tuple(case.requests), profile=profile, settings=case.settings,
            span=case.span, controller=ControllerOptions(),
        )  # fmt: skip


def replay_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    server: MeasuredServer,
    *,
    seed: int,
    progress: CaseProgress,
    between: Callable[[], None] = lambda: None,
) -> list[Replayed]:
    """Run scenarios x loads x arms live.

    Args:
        suite: with stock and fixed arms.
        workloads: of the suite's scenarios.
        server: runs vLLM with a step log.
        seed: of the live prompts.
        progress: gets a bar for each case.
        between: called before the first case and after each.

    Raises:
        ArmError, CapacityError, CalibrationError: the server is not fit for it.
    """
    arms = [parse_arm(name) for name in suite.arms]
    if moving := [arm.name for arm in arms if arm.kind not in ("stock", "fixed") or not arm.live]:
        raise CalibrationError(
            f"suite {suite.name!r}: the arm {moving[0]!r} goes its own way in each run: fidelity "
            "wants arms that stay as they are, such as 'vllm-fcfs' and 'fixed-edf+rules'"
        )
    replayed: list[Replayed] = []
    for workload in workloads:
        most_rps = capacity_rps(server.live, workload, seconds=_CAPACITY_S, progress=progress)
        facts = {"trace": workload.provenance, "capacity_rps": most_rps}
        for load, arm in product(suite.loads, suite.arms):
            if not replayed:
                between()
            case = LiveCase(
                workload.scenario, load, arm, offer(workload, load * most_rps).requests,
                suite.settings, workload.span, RecordedEngine(server.engine),
            )  # fmt: skip
            replayed.append(_replay(case, server, facts, seed, progress))
            between()
    return replayed


def compare_on(
    profile: EngineProfile,
    replayed: Sequence[Replayed],
    *,
    overhead_s: float,
    progress: CaseProgress,
) -> list[Comparison]:
    """Simulate each replayed case on `profile`, and compare.

    Args:
        profile: with the sizes of the engine that was replayed on (`sized_as`).
        replayed: live.
        overhead_s: added to each simulated time to first token, and to its end.
        progress: gets a line for each case.
    """
    comparisons = []
    for live in replayed:
        case = live.simulated_on(profile)
        title = live.case.title
        simulated, steps = simulate(case)
        comparison = compare(case, live.run, simulated, live.steps, steps, overhead_s=overhead_s)
        comparison.result.update(live.facts, others_cpu_share=live.others_cpu_share)
        comparisons.append(comparison)
        error = comparison.result["error"]["attainment_points"]
        progress.note(f"{title}: simulated attainment off by {error:+.1f} points")
    return comparisons


def _replay(
    case: LiveCase, server: MeasuredServer, facts: dict[str, Any], seed: int,
    progress: CaseProgress,
) -> Replayed:  # fmt: skip
    others = OtherLoad(server.pid)
    run, played = run_live_case(
        case, server.live, seed=seed, options=LiveOptions(ControllerOptions()), progress=progress
    )
    share = others.share()
    if line := warning(share):
        progress.warn(line)
    facts = facts | played.client
    return Replayed(case, run, server.steps(*_time_of(run)), share, facts)


def sized_as(profile: EngineProfile, snapshot: Snapshot) -> EngineProfile:
    """The profile's cost model with the batch, step and cache sizes of a running engine.

    Without its residuals: the cost model is what is compared.
    """
    envelope = snapshot.envelope
    return replace(
        profile,
        max_active_requests=envelope.max_active_requests, token_budget=envelope.token_budget,
        kv_blocks=envelope.kv_blocks, block_size=envelope.block_size,
        max_model_len=envelope.max_model_len, residuals=(),
    )  # fmt: skip


def simulate(case: SimulatedCase) -> tuple[CaseRun, Steps]:
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

    run = run_case(case, build)
    return run, steps_of(rows)


def _time_of(run: CaseRun) -> tuple[float, float]:
    first_s = min(outcome.arrival_s for outcome in run.outcomes)
    return first_s, max(outcome.finished_s for outcome in run.outcomes)

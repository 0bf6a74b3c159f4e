"""How far is the simulator from the machine? The same requests live and simulated.

Each case of a suite runs live and is then simulated: the same requests at the same times
with the same lengths. Called by `hmas eval fidelity`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.engine import RunnableEngine
from evals.checks.fidelity.comparison import Comparison, compare
from evals.checks.fidelity.machine import OtherLoad, warning
from evals.checks.fidelity.server import MeasuredServer
from evals.live.run import LiveRun, Played, play
from evals.machines.steps import CalibrationError, Steps, steps_of
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.result.metrics import CaseRun
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import Suite
from serving.contracts import Outcome, Snapshot
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile, profile_from_snapshot

# What a result says beside the figures that are compared.
FROM_LIVE = ("trace", "capacity_rps", "lateness_s", "itl_s", "longest_gap_s", "wrong_lengths",
             "lengths_told")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Replayed:
    """A case as it went live, with the steps that it caused."""

    live: Played
    settings: EngineSettings
    steps: Steps
    others_cpu_share: float | None

    def simulated_on(self, profile: EngineProfile) -> SimulatedCase:
        """The same case for the simulator."""
        live = self.live
        return SimulatedCase(
            scenario=live.workload.scenario, load=live.load, arm=parse_arm(live.arm),
            requests=tuple(live.offered.requests), profile=profile, settings=self.settings,
            span=live.workload.span, controller=ControllerOptions(),
        )  # fmt: skip


def replay_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    server: MeasuredServer,
    *,
    progress: CaseProgress,
    between: Callable[[], None] = lambda: None,
) -> list[Replayed]:
    """Run scenarios x loads x arms live.

    `between` is called before the first case and after each.

    Raises:
        ArmError, CapacityError, CalibrationError: the server is not fit for it.
    """
    arms = [parse_arm(name) for name in suite.arms]
    if moving := [arm.name for arm in arms if arm.kind not in ("stock", "fixed") or not arm.live]:
        raise CalibrationError(
            f"suite {suite.name!r}: the arm {moving[0]!r} goes its own way in each run: fidelity "
            "wants arms that stay as they are, such as 'vllm-fcfs' and 'fixed-edf+rules'"
        )
    live = LiveRun(suite, server.live, progress)
    replayed: list[Replayed] = []
    between()
    others = OtherLoad(server.pid)
    for played in play(live, workloads):
        share = others.share()
        if line := warning(share):
            progress.warn(line)
        steps = server.steps(*_time_of(played.run))
        replayed.append(Replayed(played, suite.settings, steps, share))
        between()
        others = OtherLoad(server.pid)
    return replayed


def compare_on(
    profile: EngineProfile,
    replayed: Sequence[Replayed],
    *,
    overhead_s: float,
    progress: CaseProgress,
) -> list[Comparison]:
    """Simulate each replayed case on `profile`, and compare.

    `profile` has the sizes of the engine that was replayed on (`sized_as`); `overhead_s` is added
    to each simulated time to first token, and to its end.
    """
    comparisons = []
    for each in replayed:
        case = each.simulated_on(profile)
        simulated, steps = simulate(case)
        comparison = compare(
            case, each.live.run, simulated, each.steps, steps, overhead_s=overhead_s
        )
        told = {key: each.live.result[key] for key in FROM_LIVE if key in each.live.result}
        comparison.result.update(told, others_cpu_share=each.others_cpu_share)
        comparisons.append(comparison)
        error = comparison.result["error"]["attainment_points"]
        progress.note(f"{case.title}: simulated attainment off by {error:+.1f} points")
    return comparisons


def sized_as(profile: EngineProfile, snapshot: Snapshot) -> EngineProfile:
    """The profile's cost model with the batch, step and cache sizes of a running engine.

    Without its residuals: the cost model is what is compared.
    """
    return replace(
        profile_from_snapshot(snapshot), name=profile.name, provenance=profile.provenance,
        cost=profile.cost,
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

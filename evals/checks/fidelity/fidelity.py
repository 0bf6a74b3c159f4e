"""How far is the simulator from the machine? The same requests live and simulated.

Each case of a suite runs live and is then simulated: the same requests at the same times
with the same lengths. Called by `hmas eval fidelity`; the keys are the format of its `--json`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.engine import RunnableEngine
from evals.checks.fidelity.server import MeasuredServer, OtherLoad, warning
from evals.live.run import LiveRun, Played, play
from evals.machines.fit import step_errors
from evals.machines.steps import CalibrationError, Steps, steps_of
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.result.metrics import CaseRun, Result, summarise
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import Suite
from serving.contracts import Outcome, Snapshot
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile, profile_from_snapshot
from serving.perception.accounting import judge

# What the project asks of its simulator: points of attainment, and shares of the rest.
TARGET_POINTS, TARGET_SHARE = 5.0, 0.15
_LATENCIES = ("ttft_s", "tpot_s")
_PERCENTILES = ("p50", "p90")
# What a result says beside the figures that are compared.
FROM_LIVE = ("trace", "capacity_rps", "lateness_s", "itl_s", "longest_gap_s", "wrong_lengths",
             "lengths_told")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case, live and simulated: the public result, and the outcomes for the plots."""

    result: Result
    live: Sequence[Outcome]
    simulated: Sequence[Outcome]


def compare(
    case: SimulatedCase, live: CaseRun, simulated: CaseRun, live_steps: Steps,
    simulated_steps: Steps, *, overhead_s: float,
) -> Comparison:  # fmt: skip
    """Errors of one case: simulated over live, minus 1; attainment in percentage points.

    Raises:
        CalibrationError: the live run has no step in the log.
    """
    if not len(live_steps):
        raise CalibrationError(
            f"{live.scenario} {live.load:g}x {live.arm}: the step log has no step of this run: "
            "is it the file that this server writes?"
        )
    shifted = [with_overhead(outcome, overhead_s) for outcome in simulated.outcomes]
    sides = {
        "live": _figures(case, live, live_steps),
        "simulated": _figures(case, replace(simulated, outcomes=shifted), simulated_steps),
    }
    raw = _figures(case, simulated, simulated_steps)
    result: Result = {
        "scenario": case.scenario, "load": case.load, "arm": case.arm.name,
        "requests": len(live.outcomes), "warmup_s": case.span.warmup_s, "overhead_s": overhead_s,
        "engine": f"simulated {case.profile.name}: {case.profile.provenance}",
        **sides,
        "error": errors(sides["live"], sides["simulated"]),
        "error_without_overhead": errors(sides["live"], raw),
        # The cost model on the shapes that really ran: what of the error is not scheduling.
        "step_model": step_errors(live_steps, case.profile.cost),
    }  # fmt: skip
    result["within_target"] = within_target(result["error"])
    return Comparison(result, live.outcomes, shifted)


def with_overhead(outcome: Outcome, overhead_s: float) -> Outcome:
    """The outcome as a client that far away sees it: first token and end that much later."""
    if outcome.ttft_s is None:
        return outcome
    ttft_s, e2e_s = outcome.ttft_s + overhead_s, outcome.e2e_s + overhead_s
    met, miss = judge(
        outcome.slo, outcome.queue_s, ttft_s, outcome.tpot_s, e2e_s, outcome.late_gaps,
        max(0, outcome.output_tokens - 1),
    )  # fmt: skip
    if outcome.finish not in ("stop", "length"):
        met, miss = False, outcome.miss
    return replace(
        outcome, ttft_s=ttft_s, e2e_s=e2e_s, finished_s=outcome.finished_s + overhead_s,
        met=met, miss=miss,
    )  # fmt: skip


def errors(live: Result, simulated: Result) -> dict[str, float | None]:
    """Errors by name; None where one side has no value."""
    found: dict[str, float | None] = {
        "attainment_points": 100 * (simulated["attainment"] - live["attainment"])
    }
    for latency in _LATENCIES:
        for p in _PERCENTILES:
            found[f"{latency.removesuffix('_s')}_{p}"] = _relative(
                live[latency][p], simulated[latency][p]
            )
    for which in ("mean", *_PERCENTILES):
        found[f"step_{which}"] = _relative(live["step_s"][which], simulated["step_s"][which])
    return found


def within_target(error: dict[str, float | None]) -> bool:
    """Whether attainment, TTFT and TPOT are as near as the project asks."""
    points = error["attainment_points"]
    shares = [value for name, value in error.items() if name.startswith(("ttft", "tpot"))]
    return (
        points is not None and abs(points) <= TARGET_POINTS
        and all(value is not None and abs(value) <= TARGET_SHARE for value in shares)
    )  # fmt: skip


def _figures(case: SimulatedCase, run: CaseRun, steps: Steps) -> Result:
    """As a suite counts them, live or simulated; steps are of the whole run."""
    # Clocks differ: both sides' time begins with their first arrival.
    span_s = case.span.counted_until_s - case.requests[0].arrival_s
    summary = summarise(run, span_s, warmup_s=case.span.warmup_s, contract=case.settings.contract)
    p50, p90 = np.percentile(steps.seconds, (50, 90))
    return {
        key: summary[key]
        for key in ("attainment", "attainment_by_class", "goodput_rps", "goodput_tokens_per_s",
                    "goodput_weighted_rps", *_LATENCIES, "not_served", "preemptions")
    } | {
        "steps": len(steps),
        "step_s": {"mean": float(steps.seconds.mean()), "p50": float(p50), "p90": float(p90)},
    }  # fmt: skip


def _relative(live: float | None, simulated: float | None) -> float | None:
    return None if live is None or simulated is None else simulated / live - 1


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

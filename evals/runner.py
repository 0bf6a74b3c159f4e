"""How is a suite run in the simulator? Capacity first, then every case, in parallel.

The same suite, seed and trace give the same result object, whatever `jobs` is.
Called by `hmas eval run --engine sim`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from evals.arms import ControllerOptions, parse_arm
from evals.metrics import CaseRun, Result, summarise
from evals.progress import CaseProgress
from evals.run_result import SuiteRun, versions
from evals.scenario import Workload
from evals.simulated_case import CapacityCase, SimulatedCase, measure_capacity, run_case
from evals.suite import Suite
from evals.workers import WorkerPool
from evals.workloads.scaling import scale_to_rate, span_s
from serving.engines.profile import EngineProfile


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, not what: none of it may change a result.

    `ledger_dir` gets one decision ledger per case of the arm `hmas`; None records none.
    """

    jobs: int
    controller: ControllerOptions
    ledger_dir: Path | None = None


def run_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    profile: EngineProfile,
    *,
    seed: int,
    options: RunOptions,
    progress: CaseProgress,
) -> SuiteRun:
    """Run scenarios x loads x arms.

    Raises:
        WorkerError: a case failed; nothing is returned for the others.
        WorkloadError: a workload is too small to have a capacity or a rate.
    """
    with WorkerPool(options.jobs) as pool:
        capacities = _capacities(pool, suite, workloads, profile, progress)
        cases = [
            _case(
                suite,
                workload,
                profile,
                options,
                rate_rps=load * capacities[workload.scenario],
                load=load,
                arm=arm,
            )
            for workload, load, arm in product(workloads, suite.loads, suite.arms)
        ]
        bars = [
            progress.add(f"{case.scenario} {case.load:g}x {case.arm.name}", len(case.requests))
            for case in cases
        ]
        runs = pool.map(
            run_case,
            cases,
            lambda i, finished: progress.update(bars[i], finished),
            lambda i, run: progress.done(bars[i], _line(cases[i], run)),
        )
    provenance = {workload.scenario: workload.provenance for workload in workloads}
    results = []
    for case, run in zip(cases, runs, strict=True):
        result = simulated_result(case, run)
        result["trace"] = provenance[case.scenario]
        result["capacity_rps"] = capacities[case.scenario]
        results.append(result)
    return SuiteRun(suite.name, seed, versions(), results, runs)


def simulated_result(case: SimulatedCase, run: CaseRun) -> Result:
    """The result object of a simulated case; says which profile was simulated."""
    result = summarise(run, span_s(case.requests))
    result["engine"] = f"simulated {case.profile.name}: {case.profile.provenance}"
    return result


def _capacities(
    pool: WorkerPool,
    suite: Suite,
    workloads: Sequence[Workload],
    profile: EngineProfile,
    progress: CaseProgress,
) -> dict[str, float]:
    cases = [CapacityCase(workload.requests, profile, suite.settings) for workload in workloads]
    bars = [
        progress.add(f"{workload.scenario} capacity", len(workload.requests))
        for workload in workloads
    ]
    rates = pool.map(
        measure_capacity,
        cases,
        lambda i, finished: progress.update(bars[i], finished),
        lambda i, rate: progress.done(
            bars[i], f"{workloads[i].scenario}: capacity {rate:.2f} requests/s (stock, saturated)"
        ),
    )
    names = [workload.scenario for workload in workloads]
    return dict(zip(names, rates, strict=True))


def _case(
    suite: Suite,
    workload: Workload,
    profile: EngineProfile,
    options: RunOptions,
    *,
    rate_rps: float,
    load: float,
    arm: str,
) -> SimulatedCase:
    ledger = None
    if options.ledger_dir is not None:
        ledger = options.ledger_dir / f"ledger-{workload.scenario}-{load:g}x.sqlite"
    return SimulatedCase(
        scenario=workload.scenario,
        load=load,
        arm=parse_arm(arm),
        requests=scale_to_rate(workload.requests, rate_rps),
        profile=profile,
        settings=suite.settings,
        drain_s=suite.drain_s,
        controller=replace(options.controller, ledger_path=ledger),
    )


def _line(case: SimulatedCase, run: CaseRun) -> str:
    result = simulated_result(case, run)
    return (
        f"{run.scenario} {run.load:g}x {run.arm}: "
        f"goodput {result['goodput_rps']:.2f} requests/s, attainment {result['attainment']:.1%}"
    )

"""How is a suite run in the simulator? Capacity first, then every case, then what bounds them.

The same suite, seeds and trace give the same result object, whatever `jobs` is. Called by
`hmas eval run --engine sim`.
"""

from collections.abc import Mapping, Sequence

from evals.arms.case import CaseId, SimulatedCase
from evals.progress import CaseProgress
from evals.requests.offer import FAR, Workload
from evals.result.metrics import Result
from evals.result.run_result import SuiteRun, versions
from evals.sim.jobs import (
    FinishedCase,
    RunOptions,
    at_once,
    bound_of,
    capacity_rps_of,
    cases_of,
    finish,
)
from evals.sim.workers import Workers
from evals.suite.suite import Suite
from serving.engines.profile import EngineProfile


def run_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    *,
    options: RunOptions,
    progress: CaseProgress,
) -> SuiteRun:
    """Run scenarios x seeds x loads x arms.

    Args:
        suite: seeds, loads, arms and settings. Of the first seed outcomes are kept.
        workloads: one per profile, scenario and seed; each has a capacity of its own.
        profiles: the machines, by name.
        options: how.
        progress: gets a line per case.

    Raises:
        WorkerError: a case failed.
        WorkloadError: a workload is too small to have a rate.
    """
    with Workers(options.jobs, progress) as workers:
        cases = all_cases(workers, suite, workloads, profiles, options)
        _warn_of_loads(cases, progress)
        finished = _simulated(workers, cases)
        bounds = _bounds(workers, cases)
    return SuiteRun(
        suite.name,
        suite.every_seed[0],
        versions(),
        [_bounded(finished[case.id].result, bounds[case.id[:3]]) for case in cases],
        [finished[case.id].run for case in cases],
    )


def all_cases(
    workers: Workers,
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    options: RunOptions,
) -> list[SimulatedCase]:
    """Every case of a suite, at the capacities that are measured first."""
    capacities_rps = workers.run(
        capacity_rps_of,
        [at_once(suite, workload, profiles[workload.profile], options) for workload in workloads],
        lambda case: f"{case.scenario} seed {case.seed} capacity",
        lambda case, rate_rps: (
            f"{case.scenario} seed {case.seed}: capacity {rate_rps:.2f} requests/s"
        ),
    )
    return [
        case
        for workload, rate_rps in zip(workloads, capacities_rps, strict=True)
        for case in cases_of(suite, workload, profiles[workload.profile], options, rate_rps)
    ]


def _warn_of_loads(cases: Sequence[SimulatedCase], progress: CaseProgress) -> None:
    """Say where so few or so bursty requests come that their rate is not the load's."""
    for title, (load, counted) in {
        f"{case.scenario} {case.load:g}x seed {case.seed}": (case.load, case.facts["load_counted"])
        for case in cases
    }.items():
        if abs(float(counted) / load - 1) > FAR:
            progress.warn(f"{title}: the load of what counts is {float(counted):.3g}")


def _simulated(
    workers: Workers, cases: Sequence[SimulatedCase]
) -> dict[CaseId, FinishedCase]:
    done = workers.run(finish, cases, lambda case: case.title, _line)
    return {case.id: each for case, each in zip(cases, done, strict=True)}


def _bounds(
    workers: Workers, cases: Sequence[SimulatedCase]
) -> dict[tuple[str, float, int], Result]:
    """The upper bound by scenario, load and seed: all arms share it."""
    shared = {case.id[:3]: case for case in cases}
    found = workers.run(
        bound_of,
        list(shared.values()),
        lambda case: f"{case.scenario} {case.load:g}x seed {case.seed} bound",
        lambda case, bound: (
            f"{case.scenario} {case.load:g}x seed {case.seed}: bound "
            f"{bound['bound_rps']:.2f} requests/s, limited by {bound['bound_binding']}"
        ),
    )
    return dict(zip(shared, found, strict=True))


def _bounded(result: Result, bound: Result) -> Result:
    """With the share that an arm reached: of what arrived while it counts, whenever it ended."""
    most_rps = bound["bound_rps"]
    met_rps = result["attainment"] * result["offered_rps"]
    share = met_rps / most_rps if most_rps else None
    return result | {**bound, "bound_share": share}


def _line(case: SimulatedCase, done: FinishedCase) -> str:
    cut = f", {done.result['cut_off']} cut off: a longer tail_s?" if done.result["cut_off"] else ""
    return (
        f"{case.title}: goodput {done.result['goodput_rps']:.2f} requests/s, "
        f"attainment {done.result['attainment']:.1%}{cut}"
    )

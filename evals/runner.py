"""How is a suite run in the simulator? Capacity first, then every case, in parallel.

The same suite, seeds and trace give the same result object, whatever `jobs` is, and
whether or not a part of it was run before. Called by `hmas eval run --engine sim`.
"""

from collections.abc import Sequence

from evals.case_store import FinishedCase, code_digest, key_of
from evals.jobs import Job, RunOptions, job_key, jobs_of, run_job
from evals.metrics import Result
from evals.progress import CaseProgress
from evals.run_result import SuiteRun, versions
from evals.scenario import Workload
from evals.simulated_case import CapacityCase, measure_capacity
from evals.suite import Suite
from evals.workers import WorkerPool
from serving.engines.profile import EngineProfile


def run_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    profile: EngineProfile,
    *,
    seed: int,
    options: RunOptions,
    progress: CaseProgress,
) -> SuiteRun:
    """Run scenarios x seeds x loads x arms.

    Args:
        suite: loads, arms and settings.
        workloads: one per scenario and seed; the first of a scenario measures its capacity.
        profile: the machine.
        seed: the one whose outcomes are kept, the first.
        options: how.
        progress: gets a line per case.

    Raises:
        WorkerError: a case failed; what `store` has by then is kept.
        WorkloadError: a workload is too small to have a capacity or a rate.
    """
    code = code_digest() if options.store else ""
    with WorkerPool(options.jobs) as pool:
        capacities = _capacities(pool, suite, workloads, profile, options, progress, code)
        jobs = [
            job
            for workload in workloads
            for job in jobs_of(suite, workload, profile, options, capacities, seed)
        ]
        finished = _run(pool, jobs, options, progress, code)
    return SuiteRun(
        suite.name, seed, versions(),
        [case.result for case in finished], [case.run for case in finished],
    )  # fmt: skip


def _run(
    pool: WorkerPool,
    jobs: Sequence[Job],
    options: RunOptions,
    progress: CaseProgress,
    code: str,
) -> list[FinishedCase]:
    store = options.store
    keys = [job_key(job, code) if store else str(i) for i, job in enumerate(jobs)]
    done = {key: case for key in keys if store and (case := store.find(key))}
    todo = [(key, job) for key, job in zip(keys, jobs, strict=True) if key not in done]
    if done:
        progress.note(f"{len(done)} of {len(jobs)} cases were run before and are not run again")
    for _, job in todo:
        if (ledger := job.case.controller.ledger_path) is not None:
            for stale in ledger.parent.glob(f"{ledger.name}*"):
                stale.unlink()
    bars = [progress.add(job.title, len(job.case.requests)) for _, job in todo]

    def on_done(i: int, case: FinishedCase) -> None:
        if store is not None:
            store.add(todo[i][0], case)
        progress.done(bars[i], _line(todo[i][1], case.result))

    answers = pool.map(
        run_job,
        [job for _, job in todo],
        lambda i, served: progress.update(bars[i], served),
        on_done,
    )
    done |= dict(zip((key for key, _ in todo), answers, strict=True))
    return [done[key] for key in keys]


def _capacities(
    pool: WorkerPool,
    suite: Suite,
    workloads: Sequence[Workload],
    profile: EngineProfile,
    options: RunOptions,
    progress: CaseProgress,
    code: str,
) -> dict[tuple[str, int], float]:
    """Requests per second by scenario and seed: seeds may take other stretches of a trace."""
    store = options.store
    cases = {
        (each.scenario, each.seed): CapacityCase(
            each.requests, profile, suite.settings_of(each.spec)
        )
        for each in workloads
    }
    keys = {name: key_of("capacity", case, code) for name, case in cases.items()} if store else {}
    known = {
        name: rate for name, key in keys.items() if store and (rate := store.capacity_rps(key))
    }
    todo = [name for name in cases if name not in known]
    titles = [f"{scenario} seed {seed}: capacity" for scenario, seed in todo]
    bars = [
        progress.add(title, len(cases[name].requests))
        for title, name in zip(titles, todo, strict=True)
    ]

    def on_done(i: int, rate_rps: float) -> None:
        if store is not None:
            store.add_capacity(keys[todo[i]], rate_rps)
        progress.done(bars[i], f"{titles[i]} {rate_rps:.2f} requests/s (stock, saturated)")

    rates = pool.map(
        measure_capacity,
        [cases[name] for name in todo],
        lambda i, served: progress.update(bars[i], served),
        on_done,
    )
    return known | dict(zip(todo, rates, strict=True))


def _line(job: Job, result: Result) -> str:
    return (
        f"{job.title}: goodput {result['goodput_rps']:.2f} requests/s, "
        f"attainment {result['attainment']:.1%}"
    )

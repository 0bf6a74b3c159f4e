"""How is a suite run in the simulator? Capacity first, then every case, in parallel.

The same suite, seeds and trace give the same result object, whatever `jobs` is, and
whether or not a part of it was run before. Called by `hmas eval run --engine sim`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from evals.case_store import FinishedCase, code_digest, key_of
from evals.hindsight import candidate_names, candidates_of, chooses, conclude, switching_of
from evals.jobs import CaseId, Job, RunOptions, job_key, jobs_of, run_job
from evals.metrics import Result
from evals.progress import CaseProgress
from evals.run_result import SuiteRun, versions
from evals.scenario import Workload
from evals.shared_figures import BoundCase, CapacityCase, Figures, bound_of, measure_capacity
from evals.suite import Suite
from evals.tasks import Shelf, Task, run_tasks
from evals.workers import OnProgress, WorkerPool
from serving.engines.profile import EngineProfile

SharedCase = TypeVar("SharedCase", CapacityCase, BoundCase)


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
    codes = {
        controlled: code_digest(controlled) if options.store else ""
        for controlled in (False, True)
    }
    with WorkerPool(options.jobs) as pool:
        crew = _Crew(pool, options, progress, codes)
        capacities = crew.capacities(suite, workloads, profile)
        jobs = [
            job
            for workload in workloads
            for job in jobs_of(suite, workload, profile, options, capacities, seed)
        ]
        finished = crew.cases(jobs)
        bounds = crew.bounds(jobs, suite)
    cases = [finished[job.id] for job in jobs]
    return SuiteRun(
        suite.name,
        seed,
        versions(),
        [_bounded(case.result, bounds[job.id[:3]]) for job, case in zip(jobs, cases, strict=True)],
        [case.run for case in cases],
    )


@dataclass(frozen=True, slots=True)
class _Crew:
    """The pool, and all that it takes to hand it work."""

    pool: WorkerPool
    options: RunOptions
    progress: CaseProgress
    codes: Mapping[bool, str]  # by whether an arm has a controller

    def cases(self, jobs: Sequence[Job]) -> dict[CaseId, FinishedCase]:
        """Every job's case; those that choose in hindsight after all that they choose from."""
        names = candidate_names(jobs)
        first = {job.id: job for job in candidates_of(jobs, names)}
        first |= {job.id: job for job in jobs if not chooses(job)}
        finished = self._simulated(list(first.values()))
        finished |= self._simulated(switching_of(jobs, names, finished))
        return finished | {job.id: conclude(job, names, finished) for job in jobs if chooses(job)}

    def capacities(
        self, suite: Suite, workloads: Sequence[Workload], profile: EngineProfile
    ) -> dict[tuple[str, int], float]:
        """Requests per second by scenario and seed: seeds may take other stretches of a trace."""
        cases = {
            (each.scenario, each.seed): CapacityCase(
                each.requests, profile, suite.settings_of(each.spec)
            )
            for each in workloads
        }
        titles = [f"{scenario} seed {seed}: capacity" for scenario, seed in cases]
        rates = self._shared(
            measure_capacity, list(cases.values()), titles, "{capacity_rps:.2f} requests/s"
        )
        return {
            name: float(rate["capacity_rps"]) for name, rate in zip(cases, rates, strict=True)
        }

    def bounds(
        self, jobs: Sequence[Job], suite: Suite
    ) -> dict[tuple[str, float, int], Figures]:
        """The upper bound by scenario, load and seed."""
        cases = {
            job.id[:3]: BoundCase(
                job.case.requests, job.case.profile, job.case.settings, suite.drain_s,
                suite.warmup_s,
            )
            for job in jobs
        }  # fmt: skip
        titles = [f"{scenario} {load:g}x seed {seed}: bound" for scenario, load, seed in cases]
        line = "{bound_rps:.2f} requests/s, limited by {bound_binding}"
        found = self._shared(bound_of, list(cases.values()), titles, line)
        return dict(zip(cases, found, strict=True))

    def _simulated(self, jobs: Sequence[Job]) -> dict[CaseId, FinishedCase]:
        store = self.options.store
        shelf: Shelf[FinishedCase] = Shelf(store.find, store.add) if store else Shelf()
        tasks = [
            Task(self._key(job), job, job.title, len(job.case.requests)) for job in jobs
        ]
        for task in tasks:
            ledger = task.item.case.controller.ledger_path
            if ledger is not None and shelf.find(task.key) is None:
                for stale in ledger.parent.glob(f"{ledger.name}*"):
                    stale.unlink()
        done = run_tasks(self.pool, run_job, tasks, shelf, self.progress, _line)
        return dict(zip((job.id for job in jobs), done, strict=True))

    def _key(self, job: Job) -> str:
        if self.options.store is None:
            return repr(job.id)
        return job_key(job, self.codes[job.case.arm.controlled])

    def _shared(
        self,
        function: Callable[[SharedCase, OnProgress], Figures],
        cases: Sequence[SharedCase],
        titles: Sequence[str],
        line: str,
    ) -> list[Figures]:
        store = self.options.store
        shelf: Shelf[Figures] = Shelf(store.figures, store.add_figures) if store else Shelf()
        tasks = [
            Task(key_of(title, case, self.codes[False]) if store else title, case, title,
                 len(case.requests))
            for title, case in zip(titles, cases, strict=True)
        ]  # fmt: skip
        return run_tasks(
            self.pool, function, tasks, shelf, self.progress,
            lambda task, found: f"{task.title} {line.format(**found)}",
        )  # fmt: skip


def _bounded(result: Result, bound: Mapping[str, float | str]) -> Result:
    most_rps = float(bound["bound_rps"])
    share = result["goodput_rps"] / most_rps if most_rps else None
    return result | {**bound, "bound_share": share}


def _line(task: Task[Job], case: FinishedCase) -> str:
    return (
        f"{task.title}: goodput {case.result['goodput_rps']:.2f} requests/s, "
        f"attainment {case.result['attainment']:.1%}"
    )

"""Which cases does a suite come to, and what does one leave behind?

A job is a simulated case and what its result says beside the figures. Made and keyed in the
parent by `evals.runner`, run in worker processes.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path

from evals.arms import ControllerOptions, parse_arm
from evals.baselines import run_case
from evals.case_store import CaseStore, FinishedCase, key_of
from evals.metrics import summarise
from evals.offer import Offered, offer
from evals.run_result import versions
from evals.scenario import Workload
from evals.simulated_case import SimulatedCase
from evals.suite import Suite
from evals.workers import OnProgress
from evals.workloads.scaling import span_s
from serving.engines.profile import EngineProfile

CaseId = tuple[str, float, int, str]  # scenario, load, seed, arm


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, not what: none of it may change a result.

    Attributes:
        jobs: worker processes.
        controller: of the arms that have one.
        ledger_dir: gets one decision ledger per case of the arm `hmas`; None records none.
        store: finished cases are kept there, and those it has are not run again.
        drawn: arms whose run of the first seed comes back with its outcomes. Those of other
            seeds never do: hundreds of cases would not fit into memory.
    """

    jobs: int
    controller: ControllerOptions
    ledger_dir: Path | None = None
    store: CaseStore | None = None
    drawn: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One case and what its result says beside the figures."""

    case: SimulatedCase
    trace: str
    capacity_rps: float
    warmup_s: float
    moments_s: tuple[float, ...]
    keep_outcomes: bool

    @property
    def id(self) -> CaseId:
        """What tells it from the other jobs of its suite."""
        case = self.case
        return case.scenario, case.load, case.seed, case.arm.name

    @property
    def title(self) -> str:
        """How progress names it."""
        case = self.case
        return f"{case.scenario} {case.load:g}x {case.arm.name} seed {case.seed}"


def run_job(job: Job, on_progress: OnProgress) -> FinishedCase:
    """Run one case in a worker process; only what is kept goes back through the pipe."""
    run = run_case(job.case, on_progress)
    span = span_s(job.case.requests)
    result = summarise(run, span, warmup_s=job.warmup_s, moments_s=job.moments_s)
    profile = job.case.profile
    result["engine"] = f"simulated {profile.name}: {profile.provenance}"
    result["trace"] = job.trace
    result["capacity_rps"] = job.capacity_rps
    result["seed"] = job.case.seed
    return FinishedCase(result, run if job.keep_outcomes else replace(run, outcomes=()))


def jobs_of(
    suite: Suite,
    workload: Workload,
    profile: EngineProfile,
    options: RunOptions,
    capacities: dict[tuple[str, int], float],
    seed: int,
) -> list[Job]:
    """Loads x arms of one workload; `seed` is the one whose outcomes are kept."""
    capacity_rps = capacities[workload.scenario, workload.seed]
    offered = {load: offer(workload, load * capacity_rps) for load in suite.loads}
    return [
        Job(
            case=_case(suite, workload, profile, options, offered[load], load=load, arm=arm),
            trace=workload.provenance,
            capacity_rps=capacity_rps,
            warmup_s=suite.warmup_s,
            moments_s=offered[load].moments_s,
            keep_outcomes=arm in options.drawn and workload.seed == seed,
        )
        for load, arm in product(suite.loads, suite.arms)
    ]


def _case(
    suite: Suite,
    workload: Workload,
    profile: EngineProfile,
    options: RunOptions,
    offered: Offered,
    *,
    load: float,
    arm: str,
) -> SimulatedCase:
    ledger = None
    if options.ledger_dir is not None and arm == "hmas":
        several = f"-seed{workload.seed}" if len(suite.every_seed) > 1 else ""
        ledger = options.ledger_dir / f"ledger-{workload.scenario}-{load:g}x{several}.sqlite"
    return SimulatedCase(
        scenario=workload.scenario,
        load=load,
        arm=parse_arm(arm),
        requests=offered.requests,
        profile=profile,
        settings=suite.settings_of(workload.spec),
        drain_s=suite.drain_s,
        controller=replace(options.controller, ledger_path=ledger),
        seed=workload.seed,
        warmup_s=suite.warmup_s,
    )


def job_key(job: Job, code: str) -> str:
    """What decides the result: what controller files hold, but not where they or the ledger lie."""
    controller = job.case.controller
    files = [controller.config_path, None if controller.model_url else controller.cassette]
    held = [file.read_bytes() for file in files if file is not None and file.is_file()]
    case = replace(
        job.case,
        requests=(),
        controller=replace(controller, config_path=None, ledger_path=None, cassette=None),
    )
    decides = replace(job, case=case, keep_outcomes=False)
    requests = _requests_key(job.case.requests)
    return key_of(decides, requests, held, sorted(versions().items()), code)


@lru_cache(maxsize=4)
def _requests_key(requests: tuple[object, ...]) -> str:
    return key_of(requests)

"""How is a suite run in the simulator? Capacity first, then every case, then what bounds them.

Capacity is the unit of `load`: stock vLLM under a steady overload, completions in its second half.
By then the batch is full of requests of every age, as in a run that lasts. What is offered at once
begins with a batch of equally young ones, and ends with one that runs empty.

The same suite, seeds and trace give the same result object, whatever `jobs` is. What takes a
case or a job here is run in worker processes. Called by `hmas eval run --engine sim`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.engine import CHARGED
from evals.arms.sglang.engine import CHUNKED_PREFILL_SIZE
from evals.progress import CaseProgress
from evals.requests.offer import FAR, Workload, offer
from evals.requests.scenario import LEAST_COMPLETIONS
from evals.requests.trace import WorkloadError
from evals.result.metrics import CaseRun, Facts, Result, summarise
from evals.result.run_result import SuiteRun, versions
from evals.sim.bound import upper_bound
from evals.sim.episodes import Episode
from evals.sim.workers import Workers
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import Suite
from evals.suite.tuned import TunedMachine
from evals.suite.words_spec import Readings
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile

OVERLOAD = 2  # times capacity, as far as a first run tells it
# Offered at least, over and over: the half that counts must be long against a single request.
OFFERED = 16_000


def simulated_capacity_rps(
    profile: EngineProfile, settings: EngineSettings, requests: Sequence[TraceRequest]
) -> float:
    """Requests per second that stock FCFS completes when saturated.

    Requests come in their order at regular times: their own bursts are no steady overload.

    Raises:
        WorkloadError: too few requests finished to tell.
    """
    pilot = _finished_s(profile, settings, requests, 0.0)
    low, high = round(0.1 * len(pilot)), round(0.8 * len(pilot))
    if len(pilot) < LEAST_COMPLETIONS or pilot[high] <= pilot[low]:
        raise _too_few(len(pilot))
    gap_s = float(pilot[high] - pilot[low]) / (high - low) / OVERLOAD
    copies = -(-OFFERED // len(requests))
    finished_s = _finished_s(profile, settings, _repeated(requests, copies), gap_s)
    end_s = gap_s * copies * len(requests)
    counted = int(((finished_s > end_s / 2) & (finished_s <= end_s)).sum())
    if counted < LEAST_COMPLETIONS:
        raise _too_few(counted)
    return counted / (end_s / 2)


def _repeated(requests: Sequence[TraceRequest], copies: int) -> list[TraceRequest]:
    """Copies one after the other; they share no prompts, but for those that a copy itself does."""
    return [
        replace(one, prefix=tuple(copy + copies * block for block in one.prefix))
        if one.prefix
        else one
        for copy in range(copies)
        for one in requests
    ]


def _finished_s(
    profile: EngineProfile, settings: EngineSettings, requests: Sequence[TraceRequest],
    gap_s: float,
) -> NDArray[np.float64]:  # fmt: skip
    """When requests end that come every `gap_s` seconds, sorted; until the last one comes."""
    workload = columns(requests, profile)
    workload = replace(workload, arrival_s=gap_s * np.arange(len(requests), dtype=np.float64))
    until_s = gap_s * len(requests) or None
    served = CompiledEngine(profile, settings, stock=True).run_columns(workload, (), until_s)
    return np.sort(served.finished_s[served.finish < 2])


def _too_few(count: int) -> WorkloadError:
    return WorkloadError(f"{count} completed requests are too few to measure capacity: take more")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, not what: none of it may change a result."""

    jobs: int  # worker processes
    controller: ControllerOptions  # of the arms that have one
    # Gets one decision ledger per case of the arm `hmas`; None records none.
    ledger_dir: Path | None = None
    # What `hmas eval tune` found, by machine; empty where no arm reads it.
    tuned: Mapping[str, TunedMachine] = field(default_factory=dict)
    # What arms that go by a reader of words understand of a suite's texts, by arm.
    readings: Mapping[str, Readings] = field(default_factory=dict)
    # Arms whose run of the first seed comes back with its outcomes. Those of other seeds never do:
    # hundreds of cases would not fit into memory.
    drawn: Collection[str] = ()


def run_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    *,
    options: RunOptions,
    progress: CaseProgress,
) -> SuiteRun:
    """Run scenarios x seeds x loads x arms; `workloads` are one per profile, scenario and seed.

    Each workload has a capacity of its own. Outcomes are kept of the first seed.

    Raises:
        WorkerError: a case failed.
        WorkloadError: a workload is too small to have a rate.
    """
    with Workers(options.jobs, progress) as workers:
        cases = all_cases(workers, suite, workloads, profiles, options)
        for where, case in {_where(case): case for case in cases}.items():
            counted = float(case.facts["load_counted"])
            if abs(counted / case.load - 1) > FAR:  # so few or so bursty requests come
                progress.warn(f"{where}: the load of what counts is {counted:.3g}")
        finished = workers.run(finish, cases, lambda case: case.title, _line)
        shared = {_where(case): case for case in cases}  # all arms of one share the bound
        found = workers.run(
            bound_of, list(shared.values()), lambda case: f"{_where(case)} bound",
            lambda case, bound: f"{_where(case)}: bound {bound['bound_rps']:.2f} requests/s, "
            f"limited by {bound['bound_binding']}",
        )  # fmt: skip
    bounds = dict(zip(shared, found, strict=True))
    return SuiteRun(
        suite.name, suite.every_seed[0], versions(),
        [_bounded(result, bounds[_where(case)])
         for case, (result, _) in zip(cases, finished, strict=True)],
        [run for _, run in finished],
    )  # fmt: skip


def all_cases(
    workers: Workers,
    suite: Suite,
    workloads: Sequence[Workload],
    profiles: Mapping[str, EngineProfile],
    options: RunOptions,
) -> list[SimulatedCase]:
    """Every case of a suite, at the capacities that are measured first."""
    jobs = [(workload, profiles[workload.profile], suite.settings) for workload in workloads]
    capacities_rps = workers.run(
        capacity_rps_of, jobs, lambda job: f"{job[0].scenario} seed {job[0].seed} capacity",
        lambda job, rate_rps: (
            f"{job[0].scenario} seed {job[0].seed}: capacity {rate_rps:.2f} requests/s"
        ),
    )  # fmt: skip
    return [
        case
        for workload, rate_rps in zip(workloads, capacities_rps, strict=True)
        for case in cases_of(suite, workload, profiles[workload.profile], options, rate_rps)
    ]


def capacity_rps_of(job: tuple[Workload, EngineProfile, EngineSettings]) -> float:
    """Requests per second that stock vLLM completes of requests like a workload's."""
    workload, profile, settings = job
    machine = replace(profile, noise_seed=workload.seed)
    return simulated_capacity_rps(machine, workload.settings(settings), workload.requests)


def cases_of(
    suite: Suite,
    workload: Workload,
    profile: EngineProfile,
    options: RunOptions,
    capacity_rps: float,
) -> list[SimulatedCase]:
    """Loads x arms of one workload. The first seed's outcomes are kept, of the drawn arms."""
    several = f"-seed{workload.seed}" if len(suite.every_seed) > 1 else ""
    settings = workload.settings(suite.settings)
    episode, cases = Episode(workload, settings.contract), []
    for load in suite.loads:
        offered = offer(workload, load * capacity_rps)
        facts: Facts = {
            "trace": workload.provenance, "half": workload.half, "profile": profile.name,
            "capacity_rps": capacity_rps, "load_counted": offered.counted_rps / capacity_rps,
        }  # fmt: skip
        for arm in suite.arms:
            ledger = None
            if options.ledger_dir is not None and arm == "hmas":
                name = f"ledger-{workload.scenario}-{load:g}x{several}.sqlite"
                ledger = options.ledger_dir / name
            cases.append(SimulatedCase(
                scenario=workload.scenario, load=load, arm=parse_arm(arm),
                requests=offered.requests,
                profile=replace(profile, noise_seed=workload.seed),  # the same noise for every arm
                settings=settings, span=workload.span,
                controller=replace(options.controller, ledger_path=ledger), seed=workload.seed,
                tuned=options.tuned.get(profile.name), facts=facts, moments_s=offered.moments_s,
                expected=offered.expected, said=episode.said(arm, options.readings.get(arm)),
                wanted=episode.wanted(), named=episode.named(),
                keep_outcomes=workload.seed == suite.every_seed[0] and arm in options.drawn,
            ))  # fmt: skip
    return cases


def finish(case: SimulatedCase) -> tuple[Result, CaseRun]:
    """Run a case; only what is kept goes back to the parent."""
    run = run_case(case)
    result = summarise(
        run, case.span.counted_until_s, warmup_s=case.span.warmup_s, moments_s=case.moments_s,
        start_s=0.0, contract=case.settings.contract, wanted=case.wanted, named=case.named,
    )  # fmt: skip
    result |= {
        **case.facts,
        "engine": f"simulated {case.profile.name}: {case.profile.provenance}",
        "seed": case.seed,
        "cut_off": case.cut_off(run),
        "charged": CHARGED,  # wherever an arm has the hook
    }
    return result, run if case.keep_outcomes else replace(run, outcomes=())


def bound_of(case: SimulatedCase) -> Result:
    """The most goodput that any arm could reach in a case, and what limits it.

    Of the requests that count: the others cost nothing here, which can only raise it. The step is
    as large as any arm's may be, for the same reason.
    """
    counted = [one for one in case.requests if case.span.counts(one.arrival_s)]
    budget = max(case.profile.token_budget, CHUNKED_PREFILL_SIZE)
    if case.tuned is not None:
        budget = max(budget, case.tuned.stock.token_budget)
    machine = replace(case.profile, token_budget=budget)
    bound = upper_bound(counted, machine, case.settings, case.span.until_s)
    met_rps = bound.met / case.span.counted_s
    return {"bound_rps": met_rps, "bound_binding": bound.binding}


def _where(case: SimulatedCase) -> str:
    return f"{case.scenario} {case.load:g}x seed {case.seed}"


def _bounded(result: Result, bound: Result) -> Result:
    """With the share that an arm reached: of what arrived while it counts, whenever it ended."""
    most_rps = bound["bound_rps"]
    met_rps = result["attainment"] * result["offered_rps"]
    share = met_rps / most_rps if most_rps else None
    return result | {**bound, "bound_share": share}


def _line(case: SimulatedCase, done: tuple[Result, CaseRun]) -> str:
    result = done[0]
    cut = f", {result['cut_off']} cut off: a longer tail_s?" if result["cut_off"] else ""
    return (
        f"{case.title}: goodput {result['goodput_rps']:.2f} requests/s, "
        f"attainment {result['attainment']:.1%}{cut}"
    )

"""Which cases does a suite come to, and what does one leave behind?

Cases are made in the parent by `evals.sim.suite_run`; what has a case as its only argument
here is run in worker processes.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.engine import CHARGED
from evals.arms.sglang.engine import CHUNKED_PREFILL_SIZE
from evals.requests.offer import Offered, Workload, offer
from evals.result.metrics import CaseRun, Facts, Result, summarise
from evals.sim.bound import upper_bound
from evals.sim.capacity import simulated_capacity_rps
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.contenders import STOCK
from evals.suite.suite import Suite
from evals.suite.tuned import TunedMachine
from serving.engines.profile import EngineProfile


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, not what: none of it may change a result.

    Attributes:
        jobs: worker processes.
        controller: of the arms that have one.
        ledger_dir: gets one decision ledger per case of the arm `hmas`; None records none.
        tuned: what `hmas eval tune` found, by machine; empty where no arm reads it.
        drawn: arms whose run of the first seed comes back with its outcomes. Those of other
            seeds never do: hundreds of cases would not fit into memory.
    """

    jobs: int
    controller: ControllerOptions
    ledger_dir: Path | None = None
    tuned: Mapping[str, TunedMachine] = field(default_factory=dict)
    drawn: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class FinishedCase:
    """The result of a case and, as far as it is kept, the run behind it."""

    result: Result
    run: CaseRun


def finish(case: SimulatedCase) -> FinishedCase:
    """Run a case; only what is kept goes back to the parent."""
    run = run_case(case)
    result = summarise(
        run, case.span.counted_until_s, warmup_s=case.span.warmup_s, moments_s=case.moments_s,
        start_s=0.0, contract=case.settings.contract,
    )  # fmt: skip
    result |= {
        **case.facts,
        "engine": f"simulated {case.profile.name}: {case.profile.provenance}",
        "seed": case.seed,
        "cut_off": case.cut_off(run),
        "charged": CHARGED,  # wherever an arm has the hook
    }
    return FinishedCase(result, run if case.keep_outcomes else replace(run, outcomes=()))


def capacity_rps_of(case: SimulatedCase) -> float:
    """Requests per second that stock vLLM completes of requests like the case's."""
    return simulated_capacity_rps(case.profile, case.settings, case.requests)


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


def at_once(
    suite: Suite, workload: Workload, profile: EngineProfile, options: RunOptions
) -> SimulatedCase:
    """A case of stock vLLM to measure the capacity for a workload by."""
    return _case(suite, workload, profile, options, Offered(workload.requests, 0.0), 1.0, STOCK)


def cases_of(
    suite: Suite,
    workload: Workload,
    profile: EngineProfile,
    options: RunOptions,
    capacity_rps: float,
) -> list[SimulatedCase]:
    """Loads x arms of one workload. The first seed's outcomes are kept, of the drawn arms."""
    offered = {load: offer(workload, load * capacity_rps) for load in suite.loads}
    facts: Facts = {
        "trace": workload.provenance,
        "half": workload.half,
        "profile": profile.name,
        "capacity_rps": capacity_rps,
    }
    first = workload.seed == suite.every_seed[0]
    cases = [
        _case(
            suite, workload, profile, options, offered[load], load, arm,
            {**facts, "load_counted": offered[load].counted_rps / capacity_rps},
        )
        for load, arm in product(suite.loads, suite.arms)
    ]  # fmt: skip
    return [
        replace(case, keep_outcomes=first and case.arm.name in options.drawn) for case in cases
    ]


def _case(
    suite: Suite, workload: Workload, profile: EngineProfile, options: RunOptions,
    offered: Offered, load: float, arm: str, facts: Facts | None = None,
) -> SimulatedCase:  # fmt: skip
    ledger = None
    if options.ledger_dir is not None and arm == "hmas":
        several = f"-seed{workload.seed}" if len(suite.every_seed) > 1 else ""
        ledger = options.ledger_dir / f"ledger-{workload.scenario}-{load:g}x{several}.sqlite"
    return SimulatedCase(
        scenario=workload.scenario,
        load=load,
        arm=parse_arm(arm),
        requests=offered.requests,
        profile=replace(profile, noise_seed=workload.seed),  # the same noise for every arm
        settings=workload.settings(suite.settings),
        span=workload.span,
        controller=replace(options.controller, ledger_path=ledger),
        seed=workload.seed,
        tuned=options.tuned.get(profile.name),
        facts=facts or {},
        moments_s=offered.moments_s,
        expected=offered.expected,
    )

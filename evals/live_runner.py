"""How is a suite run on a real server? Capacity first, then the arms one after the other.

The server must run vLLM with the hook; its default policy is what `vllm-fcfs` means.
Called by `hmas eval run --engine live`. Figures are measured at the client.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import httpx

from evals.arms import Arm, ControllerOptions, parse_arm
from evals.live_arm import ArmError, steered
from evals.live_capacity import CONCURRENCY, measure_capacity
from evals.load_generator import OnEvent, replay
from evals.metrics import CaseRun, Result, summarise
from evals.offer import offer
from evals.progress import CaseProgress
from evals.recording import RecordedEngine
from evals.run_result import SuiteRun, versions
from evals.scenario import Workload
from evals.suite import Suite
from evals.workloads.scaling import span_s
from serving.contracts import Outcome, TraceRequest
from serving.engines.protocol import Engine
from serving.engines.ranks import rank_count
from serving.settings import EngineSettings

IDLE_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class LiveServer:
    """A running server and its engine; `model` as the server names it."""

    base_url: str
    model: str
    engine: Engine


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How to run on the server.

    Attributes:
        controller: for the arm `hmas`.
        capacity_s: length of the capacity measurement.
        timeout_s: longest life of one request.
        ledger_dir: gets the decision ledgers; None records none.
    """

    controller: ControllerOptions
    capacity_s: float = 20.0
    timeout_s: float = 300.0
    ledger_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class LiveCase:
    """One arm on one workload at one load; `engine` records what the arm decides."""

    scenario: str
    load: float
    arm: Arm
    requests: Sequence[TraceRequest]
    settings: EngineSettings
    drain_s: float
    engine: RecordedEngine


def served_model(base_url: str) -> tuple[str, int]:
    """Name and context length of the first model a server lists.

    Raises:
        ArmError: the server does not answer, or lists no model.
    """
    try:
        response = httpx.get(f"{base_url}/v1/models", timeout=10)
        response.raise_for_status()
        card = response.json()["data"][0]
        return str(card["id"]), int(card.get("max_model_len") or 2048)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ArmError(
            f"{base_url}/v1/models: no usable answer ({error}): is the server up? See `hmas serve`"
        ) from error


def run_live_suite(
    suite: Suite,
    workloads: Sequence[Workload],
    server: LiveServer,
    *,
    seed: int,
    options: LiveOptions,
    progress: CaseProgress,
) -> SuiteRun:
    """Run scenarios x loads x arms on one server.

    Raises:
        ArmError: the engine is owned by another controller, refuses, or does not come to rest.
        CapacityError: capacity could not be measured.
    """
    results: list[Result] = []
    runs: list[CaseRun] = []
    for workload in workloads:
        capacity_rps = _capacity(workload, server, seed, options, progress)
        for load, arm in product(suite.loads, suite.arms):
            offered = offer(workload, load * capacity_rps)
            requests = offered.requests
            case = LiveCase(
                scenario=workload.scenario,
                load=load,
                arm=parse_arm(arm),
                requests=requests,
                settings=suite.settings,
                drain_s=suite.drain_s,
                engine=RecordedEngine(server.engine),
            )
            run = _run_with_bar(case, server, seed=seed, options=options, progress=progress)
            result = summarise(
                run, span_s(requests), warmup_s=suite.warmup_s, moments_s=offered.moments_s
            )
            result["trace"] = workload.provenance
            result["capacity_rps"] = capacity_rps
            result["engine"] = f"live {server.model}"
            results.append(result)
            runs.append(run)
    return SuiteRun(suite.name, seed, versions(), results, runs)


def wait_until_idle(engine: Engine, wait_s: float = IDLE_WAIT_S) -> None:
    """Wait until the engine has neither waiting nor running requests.

    Raises:
        ArmError: it still has some after `wait_s`.
    """
    until = time.monotonic() + wait_s
    while True:
        snapshot = engine.snapshot()
        inside = snapshot.queue.waiting + snapshot.batch.running
        if inside == 0:
            return
        if time.monotonic() > until:
            raise ArmError(f"{inside} requests still in the engine after {wait_s:g} s")
        time.sleep(0.5)


def _capacity(
    workload: Workload,
    server: LiveServer,
    seed: int,
    options: LiveOptions,
    progress: CaseProgress,
) -> float:
    bar = progress.add(f"{workload.scenario} capacity", len(workload.requests))
    rate_rps = asyncio.run(
        measure_capacity(
            server.base_url,
            server.model,
            workload.requests,
            seconds=options.capacity_s,
            token_seed=seed,
            concurrency=CONCURRENCY * rank_count(server.engine.snapshot()),
            run_id="capacity-",
            on_finished=lambda finished: progress.update(bar, finished),
        )
    )
    progress.done(bar, f"{workload.scenario}: capacity {rate_rps:.2f} requests/s (closed loop)")
    return rate_rps


def run_case(
    case: LiveCase,
    server: LiveServer,
    *,
    seed: int,
    options: LiveOptions,
    on_event: OnEvent,
) -> CaseRun:
    """Serve one arm's requests and return what its clients saw, and the arm's decisions.

    Raises:
        ArmError: the engine is owned by another controller, refuses, or does not come to rest.
    """
    wait_until_idle(case.engine)
    before = case.engine.snapshot().kv
    with steered(case.arm, case.engine, options.controller, {"engine.url": server.base_url}):
        replaying = replay(
            server.base_url,
            server.model,
            case.requests,
            settings=case.settings,
            token_seed=seed,
            timeout_s=options.timeout_s,
            drain_s=case.drain_s,
            run_id=f"{case.scenario}-{case.load:g}-{case.arm.name}-",
            on_event=on_event,
        )
        outcomes = asyncio.run(replaying)
    after = case.engine.snapshot().kv
    return CaseRun(
        case.scenario, case.load, case.arm.name, outcomes, case.engine.decisions,
        preemptions=after.preemptions - before.preemptions,
        recomputed_tokens=after.recomputed_tokens - before.recomputed_tokens,
    )  # fmt: skip


def _run_with_bar(
    case: LiveCase, server: LiveServer, *, seed: int, options: LiveOptions, progress: CaseProgress
) -> CaseRun:
    title = f"{case.scenario} {case.load:g}x {case.arm.name}"
    bar = progress.add(title, len(case.requests))
    left = 0

    def on_event(_kind: str, outcome: Outcome | None) -> None:
        nonlocal left
        left += outcome is not None
        progress.update(bar, left)

    if options.ledger_dir is not None:
        path = options.ledger_dir / f"ledger-{case.scenario}-{case.load:g}x.sqlite"
        controller = replace(options.controller, ledger_path=path)
        options = replace(options, controller=controller)
    run = run_case(case, server, seed=seed, options=options, on_event=on_event)
    met = sum(outcome.met for outcome in run.outcomes)
    progress.done(bar, f"{title}: {met} of {len(run.outcomes)} met their SLOs")
    return run

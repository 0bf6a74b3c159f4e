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
from evals.live_capacity import measure_capacity
from evals.load_generator import replay
from evals.metrics import CaseRun, Result, summarise
from evals.progress import CaseProgress
from evals.recording import RecordedEngine
from evals.run_result import SuiteRun, versions
from evals.scenario import Workload
from evals.suite import Suite
from evals.workloads.scaling import scale_to_rate, span_s
from serving.contracts import Outcome
from serving.engines.protocol import Engine

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
class _Case:
    workload: Workload
    load: float
    arm: Arm
    capacity_rps: float


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
            case = _Case(workload, load, parse_arm(arm), capacity_rps)
            run, span = _run_case(
                suite, case, server, seed=seed, options=options, progress=progress
            )
            result = summarise(run, span)
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
            run_id="capacity-",
            on_finished=lambda finished: progress.update(bar, finished),
        )
    )
    progress.done(bar, f"{workload.scenario}: capacity {rate_rps:.2f} requests/s (closed loop)")
    return rate_rps


def _run_case(
    suite: Suite,
    case: _Case,
    server: LiveServer,
    *,
    seed: int,
    options: LiveOptions,
    progress: CaseProgress,
) -> tuple[CaseRun, float]:
    title = f"{case.workload.scenario} {case.load:g}x {case.arm.name}"
    requests = scale_to_rate(case.workload.requests, case.load * case.capacity_rps)
    bar = progress.add(title, len(requests))
    left = 0

    def on_event(_kind: str, outcome: Outcome | None) -> None:
        nonlocal left
        left += outcome is not None
        progress.update(bar, left)

    controller = options.controller
    if options.ledger_dir is not None:
        name = f"ledger-{case.workload.scenario}-{case.load:g}x.sqlite"
        controller = replace(controller, ledger_path=options.ledger_dir / name)
    recorded = RecordedEngine(server.engine)
    wait_until_idle(recorded)
    with steered(case.arm, recorded, controller, {"engine.url": server.base_url}):
        outcomes = asyncio.run(
            replay(
                server.base_url,
                server.model,
                requests,
                settings=suite.settings,
                token_seed=seed,
                timeout_s=options.timeout_s,
                drain_s=suite.drain_s,
                run_id=f"{case.workload.scenario}-{case.load:g}-{case.arm.name}-",
                on_event=on_event,
            )
        )
    run = CaseRun(case.workload.scenario, case.load, case.arm.name, outcomes, recorded.decisions)
    progress.done(bar, f"{title}: {sum(o.met for o in outcomes)} of {len(outcomes)} met their SLOs")
    return run, span_s(requests)

"""How is one arm run on a real server? Wait for rest, steer, replay, and give it back.

The server must run vLLM with the hook; its default policy is what `vllm-fcfs` means.
Called by the live suite, the demo and the fidelity run. Figures are measured at the client.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from evals.live.arm import ArmError, steered
from evals.live.capacity import clients_for, measure_capacity
from evals.live.load_generator import OnEvent, replay
from evals.live.plain_server import model_card
from evals.progress import CaseProgress
from evals.requests.scenario import Workload
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import Arm, ControllerOptions
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
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
        card = model_card(base_url)
        return str(card["id"]), int(card.get("max_model_len") or 2048)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        raise ArmError(
            f"{base_url}/v1/models: no usable answer ({error}): is the server up? See `hmas serve`"
        ) from error


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


def measured_capacity_rps(
    server: LiveServer, workload: Workload, *, seconds: float, seed: int, progress: CaseProgress
) -> float:
    """Requests per second that the server completes of a scenario's, with a bar.

    Raises:
        CapacityError: it could not be measured.
    """
    bar = progress.add(f"{workload.scenario} capacity", len(workload.requests))
    rate_rps = asyncio.run(
        measure_capacity(
            server.base_url, server.model, workload.requests, seconds=seconds, token_seed=seed,
            concurrency=clients_for(server.engine.snapshot()), run_id="capacity-",
            on_finished=lambda finished: progress.update(bar, finished),
        )
    )  # fmt: skip
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
    label = f"{case.scenario} {case.load:g}x {case.arm.name} live"
    overrides = {"engine.url": server.base_url}
    with steered(case.arm, case.engine, options.controller, overrides, run_label=label):
        replaying = replay(
            server.base_url,
            server.model,
            case.requests,
            settings=case.settings,
            token_seed=seed,
            timeout_s=options.timeout_s,
            drain_s=case.drain_s,
            run_id=f"{case.scenario}-{case.load:g}-{case.arm.id_text}-",
            on_event=on_event,
        )
        outcomes = asyncio.run(replaying)
    after = case.engine.snapshot().kv
    return CaseRun(
        case.scenario, case.load, case.arm.name, outcomes, case.engine.decisions,
        preemptions=after.preemptions - before.preemptions,
        recomputed_tokens=after.recomputed_tokens - before.recomputed_tokens,
    )  # fmt: skip

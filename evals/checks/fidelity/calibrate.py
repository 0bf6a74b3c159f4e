"""What does a step cost on this machine? A designed load on a live server, and a fit.

`hmas calibrate`; `hmas eval fidelity --calibrate` does the same before its replay. The load tells
the coefficients apart: concurrency x prompt x output x step size, in closed loops, so that
concurrency is what was asked. What a client sees does not matter here.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import numpy as np

from evals.arms.steering import ArmError
from evals.checks.fidelity.server import MeasuredServer, OtherLoad, machine_facts, warning
from evals.live.load_generator import bodies_for, closed_loop, replay
from evals.live.server import wait_until_at_rest
from evals.machines.fit import Fit, fit_cost, residuals
from evals.machines.steps import CalibrationError, Steps, joined
from evals.progress import CaseProgress
from serving.contracts import Decision, Envelope, Limits, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile, profile_from_snapshot
from serving.engines.protocol import Engine

_RUNGS = 6
_CELLS = 4096  # then they come again
_LONGEST = 8192
_PROMPT_SHARES = (1 / 128, 1 / 16, 1 / 4, 3 / 4)  # of the context length
_OUTPUTS = (8, 64)
_CONTROLLER = "calibrate"
_WARM_UP_S = 10.0
_PROBES, _PROBE_EVERY_S = 20, 1.0
_PROBE = TraceRequest(0.0, 16, 4)


@dataclass(frozen=True, slots=True)
class Rung:
    """So many clients at a time, under so large a step."""

    concurrency: int
    token_budget: int


def rungs(envelope: Envelope) -> list[Rung]:
    """Concurrencies from 1 to the engine's most, each under the whole and a small step.

    Small steps cut prompts into chunks that look back at what came before: without them
    `per_square_s` could not be told.
    """
    most = envelope.max_active_requests
    ladder = sorted({round(most ** (i / (_RUNGS - 1))) for i in range(_RUNGS)})
    small = min(envelope.token_budget, max(most, 64, envelope.token_budget // 8))
    budgets = sorted({envelope.token_budget, small}, reverse=True)
    return [Rung(concurrency, budget) for budget in budgets for concurrency in ladder]


def cells(max_model_len: int, seed: int) -> list[TraceRequest]:
    """A draw from prompt x output; long prompts are rarer, not to take all."""
    context = min(max_model_len, _LONGEST)
    prompts = [max(2, int(context * share)) for share in _PROMPT_SHARES]
    weights = [1 / (prompt + context / 32) for prompt in prompts]
    rng = random.Random(f"{seed}:calibrate")
    drawn = [(rng.choices(prompts, weights)[0], rng.choice(_OUTPUTS)) for _ in range(_CELLS)]
    return [
        TraceRequest(0.0, prompt, max(1, min(output, max_model_len - prompt - 1)))
        for prompt, output in drawn
    ]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What came of it."""

    profile: EngineProfile  # for the simulator
    fit: Fit  # how well it fits
    overhead_s: float  # time to first token at the client beyond the step's, on an idle server
    facts: dict[str, Any]  # where and when, by name
    steps: Steps  # what was fitted to, stalls included


class Calibrator:
    """Loads a server that nobody else uses, in as many parts as wanted, and fits its cost model.

    The speed of a shared machine drifts by a tenth within minutes. Parts before, between and
    after what is to be foretold see the same machine.

    `seconds` are of load, in all parts together.

    Raises:
        ArmError: another controller owns the engine, or it does not come to rest.
        CalibrationError: the server failed a request, or the steps cannot be fitted.
    """

    def __init__(
        self, server: MeasuredServer, seconds: float, seed: int, progress: CaseProgress
    ) -> None:
        self._server, self._seed, self._progress = server, seed, progress
        self._bar = progress.add("calibration (seconds)", round(seconds + _WARM_UP_S))
        wait_until_at_rest(server.live)
        self._snapshot = server.engine.snapshot()
        designed = cells(self._snapshot.envelope.max_model_len, seed)
        self._bodies = bodies_for(server.live, designed, seed)
        self._plan = rungs(self._snapshot.envelope)
        self._parts: list[tuple[Steps, float | None]] = []
        self._loaded_s = 0.0

    def load(self, seconds: float) -> None:
        """One part: every rung of the designed load, equally long; the first part warms up."""
        if not self._parts:
            self._climb(self._plan[0], _WARM_UP_S)
        began_s, others = time.time(), OtherLoad(self._server.pid)
        for rung in self._plan:
            self._climb(rung, seconds / len(self._plan))
            wait_until_at_rest(self._server.live)
        self._parts.append((self._server.steps(began_s, time.time()), others.share()))

    def finish(self, name: str) -> Calibration:
        """Fit the profile called `name` to the steps of all parts, and warn if others ran."""
        steps = joined([steps for steps, _ in self._parts])
        shares = [share for _, share in self._parts if share is not None]
        fit = fit_cost(steps)
        facts = machine_facts(self._snapshot) | {
            "model": _model_of(self._server),
            "load_s": self._loaded_s - _WARM_UP_S,
            "parts": len(self._parts),
            "rungs": [[rung.concurrency, rung.token_budget] for rung in self._plan],
            "others_cpu_share": fmean(shares) if shares else None,
            "server_arguments": list(self._server.arguments),
        }
        overhead_s = idle_overhead_s(self._server, self._seed)
        profile = replace(
            profile_from_snapshot(self._snapshot), name=name, cost=fit.cost,
            residuals=residuals(steps, fit.cost),
            provenance=(
                f"measured {facts['date']}: {facts['model']}, vLLM {facts['vllm']}, "
                f"{facts['accelerator'] or facts['cpu']}, {fit.samples} steps, "
                f"error p50 {fit.error_p50:.1%}, p90 {fit.error_p90:.1%}"
            ),
        )  # fmt: skip
        self._progress.done(self._bar, f"calibration: {profile.provenance}")
        if line := warning(facts["others_cpu_share"]):
            self._progress.warn(line)
        return Calibration(profile, fit, overhead_s, facts, steps)

    def _climb(self, rung: Rung, rung_s: float) -> None:
        before_s = self._loaded_s
        with _step_size(self._server.engine, rung.token_budget):
            _, failures = asyncio.run(closed_loop(
                self._server.live, self._bodies, concurrency=rung.concurrency, seconds=rung_s,
                run_id=f"calibrate-{before_s:.0f}-",
                on_tick=lambda elapsed_s: self._progress.update(
                    self._bar, int(before_s + elapsed_s)
                ),
            ))  # fmt: skip
        if failures:
            raise CalibrationError(f"{self._server.live.url} failed a request: {failures[0]}")
        self._loaded_s += rung_s


def idle_overhead_s(server: MeasuredServer, seed: int) -> float:
    """Median of a lone request's time to first token, less the step that computed it.

    HTTP, tokens to text, the API server and our own client: what a client's figures have
    and the simulator does not.

    Raises:
        ArmError: the engine does not come to rest.
        CalibrationError: the server failed a request, or logged no step for it.
    """
    wait_until_at_rest(server.live)
    probes = [replace(_PROBE, arrival_s=_PROBE_EVERY_S * i) for i in range(_PROBES + 1)]
    seen = asyncio.run(replay(
        server.live, probes, settings=EngineSettings(), token_seed=seed, timeout_s=60.0,
        run_id=f"probe-{seed}-",
    )).outcomes[1:]  # the first one warms up  # fmt: skip
    overheads = []
    steps = server.steps(seen[0].arrival_s, seen[-1].finished_s)
    prefills = steps.chosen(steps.shapes[:, 0] > 0)
    for probe in seen:
        if probe.ttft_s is None:
            raise CalibrationError(f"{server.live.url} failed a probe: {probe.finish}")
        prefill = prefills.between(probe.arrival_s, probe.arrival_s + probe.ttft_s)
        if len(prefill) == 1:  # else another request came in between
            overheads.append(probe.ttft_s - float(prefill.seconds[0]))
    if not overheads:
        raise CalibrationError(
            f"{server.step_log} has no step for the probes: does the server at "
            f"{server.live.url} write there, and has nobody else requests in it?"
        )
    return float(np.median(overheads))


@contextmanager
def _step_size(engine: Engine, token_budget: int) -> Iterator[None]:
    """The default order with steps of at most `token_budget`, until the block ends."""
    snapshot = engine.snapshot()
    if snapshot.controller_id:
        raise ArmError(f"controller {snapshot.controller_id!r} owns the engine: stop it first")
    limits = Limits(snapshot.envelope.max_active_requests, token_budget)
    ack = engine.apply(Decision(
        _CONTROLLER, snapshot.epoch + 1, 3600.0, "fcfs", {}, limits, "calibration"
    ))  # fmt: skip
    if not ack.accepted:
        raise ArmError(f"the engine refused steps of {token_budget} tokens: {ack.reason}")
    try:
        yield
    finally:
        engine.release(_CONTROLLER)


def _model_of(server: MeasuredServer) -> str:
    """The folder or the name that the server loaded it from."""
    try:
        card = httpx.get(f"{server.live.url}/v1/models", timeout=10).json()["data"][0]
        return Path(card.get("root") or server.live.model).name
    except (httpx.HTTPError, ValueError, LookupError):
        return server.live.model

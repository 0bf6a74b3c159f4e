"""How well does stock vLLM do: at its defaults, tuned, and with deadlines as priorities?

Settings of `vllm-tuned` come from the development half (`evals.sim.tune`).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, run_on
from evals.result.metrics import CaseRun
from evals.result.recording import AppliedDecision
from evals.suite.tuned import StockSetting
from serving.contracts import Limits, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.offered import promised_to

if TYPE_CHECKING:
    from serving.engines.compiled import CompiledEngine


def run_stock(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """Stock vLLM as the arm has it."""
    if case.arm.name == "vllm-tuned":
        return run_setting(case, case.tuned_machine.stock)
    if case.arm.name == "vllm-priority-deadline":
        return _run_by_deadline(case)
    engine = build_engine(case.profile, case.settings, True)
    return run_on(engine, case)


def run_setting(case: SimulatedCase, setting: StockSetting) -> CaseRun:
    """Stock vLLM with these options; they are also its one decision."""
    engine = engine_with(case, setting)
    limits = Limits(setting.max_num_seqs, setting.token_budget)
    decision = AppliedDecision(0.0, "fcfs", limits, "best on the development half")
    run = run_on(engine, case, decisions=[decision])
    return replace(run, chosen=setting.model_dump())


def engine_with(case: SimulatedCase, setting: StockSetting) -> "CompiledEngine":
    """Stock vLLM with these options, on the case's machine."""
    from serving.engines.compiled import CompiledEngine

    profile = replace(
        case.profile,
        token_budget=setting.token_budget,
        max_active_requests=setting.max_num_seqs,
    )
    return CompiledEngine(
        profile, case.settings, stock=True, max_num_queued_tokens=setting.max_num_queued_tokens
    )


def _run_by_deadline(case: SimulatedCase) -> CaseRun:
    from serving.engines.compiled import CompiledEngine

    engine = CompiledEngine(case.profile, case.settings, stock=True, by_priority=True)
    requests = [
        replace(one, priority=deadline_ms(one, case.settings)) for one in case.requests
    ]
    return run_on(engine, replace(case, requests=requests))


def deadline_ms(request: TraceRequest, settings: EngineSettings) -> int:
    """When its first token is due, or the whole answer where only that is promised.

    A request without targets comes after all that have one.
    """
    slo = promised_to(request, settings)[1]
    target_ms = slo.ttft_ms if slo.ttft_ms is not None else slo.e2e_ms
    return round(1000 * request.arrival_s + (NEVER_MS if target_ms is None else target_ms))


NEVER_MS = 10**9

"""Whom is H-MAS compared with? One contender per file, all with the same signature.

`run_case` runs every arm, in worker processes too, but for `hindsight-fixed`: that one is found
among other arms (`evals.sim.hindsight`).
"""

from collections.abc import Callable

from evals.arms.admission import run_admission
from evals.arms.case import SimulatedCase
from evals.arms.controlled import run_hmas, run_rules_only, run_twin_only
from evals.arms.engine import BuildEngine, build_simulated
from evals.arms.fixed import run_fixed
from evals.arms.hindsight_switching import run_hindsight_switching
from evals.arms.random_switching import run_random_switching
from evals.arms.sglang_emulated import run_sglang, run_sglang_tuned
from evals.arms.tuned import run_stock, run_tuned
from evals.result.metrics import CaseRun

RUN: dict[str, Callable[[SimulatedCase, BuildEngine], CaseRun]] = {
    "vllm-tuned": run_tuned,
    "vllm-admission": run_admission,
    "sglang-emulated": run_sglang,
    "sglang-emulated-tuned": run_sglang_tuned,
    "random-switching": run_random_switching,
    "rules-only": run_rules_only,
    "twin-only": run_twin_only,
    "hindsight-switching": run_hindsight_switching,
}


def run_case(case: SimulatedCase, build_engine: BuildEngine = build_simulated) -> CaseRun:
    """Run one case until everything is served or the drain time is over."""
    if case.arm.kind == "stock":
        return run_stock(case, case.profile, build_engine)
    if case.arm.kind == "fixed":
        return run_fixed(case, case.arm, build_engine)
    if case.arm.kind == "hmas":
        return run_hmas(case, build_engine)
    return RUN[case.arm.name](case, build_engine)

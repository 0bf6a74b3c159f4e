"""Whom is H-MAS compared with? One contender per file, all with the same signature.

`run_baseline` is called by `evals.simulated_case` for the arms of `evals.arms.BASELINES`, but
for `hindsight-fixed`: that one is not run, it is found among other arms (`evals.hindsight`).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from evals.baselines.admission import run_admission
from evals.baselines.arm_run import ArmRun, OnProgress
from evals.baselines.controlled import run_rules_only, run_twin_only
from evals.baselines.hindsight_switching import run_hindsight_switching
from evals.baselines.random_switching import run_random_switching
from evals.baselines.sglang_emulated import run_sglang, run_sglang_tuned
from evals.baselines.tuned import run_tuned
from evals.sim_engine import BuildEngine

if TYPE_CHECKING:
    from evals.simulated_case import SimulatedCase

RUN: dict[str, Callable[["SimulatedCase", OnProgress, BuildEngine], ArmRun]] = {
    "vllm-tuned": run_tuned,
    "vllm-admission": run_admission,
    "sglang-emulated": run_sglang,
    "sglang-emulated-tuned": run_sglang_tuned,
    "random-switching": run_random_switching,
    "rules-only": run_rules_only,
    "twin-only": run_twin_only,
    "hindsight-switching": run_hindsight_switching,
}


def run_baseline(
    case: "SimulatedCase", on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """One case of the kind `baseline`."""
    return RUN[case.arm.name](case, on_progress, build_engine)

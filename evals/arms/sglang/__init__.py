"""How would SGLang's scheduling do on the same machine? An emulation, not SGLang.

The rules of SGLang 0.5.23's default scheduling, written anew from what its source says, on the cost
model and the KV capacity that every simulated arm shares. What it leaves out is on top of `engine`.
"""

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.arms.sglang.engine import EmulatedSGLang
from evals.result.metrics import CaseRun


def run_sglang(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:  # noqa: ARG001  every arm's
    """`sglang-emulated` (its defaults) and `sglang-mixed` (`--enable-mixed-chunk`)."""
    engine = EmulatedSGLang(case.profile, case.settings, mixed=case.arm.name == "sglang-mixed")
    engine.gaps_of_s = case.counted_s
    return case.ran(engine.run(case.requests, until_s=case.span.until_s), engine)

"""How would SGLang's scheduling do on the same machine? An emulation, not SGLang.

The arms `sglang-emulated` (its defaults) and `sglang-mixed` (`--enable-mixed-chunk`).
`evals.arms.sglang` has the emulation.
"""

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.result.metrics import CaseRun


def run_sglang(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:  # noqa: ARG001  as every arm
    """SGLang's defaults, with or without mixed chunks."""
    from evals.arms.sglang import EmulatedSGLang

    engine = EmulatedSGLang(case.profile, case.settings, mixed=case.arm.name == "sglang-mixed")
    engine.gaps_of_s = case.counted_s
    return case.ran(engine.run(case.requests, until_s=case.span.until_s), engine)

"""How would SGLang's scheduling do on the same machine? An emulation, not SGLang.

The arms `sglang-emulated` (its default prefill chunk) and `sglang-emulated-tuned` (the chunk
chosen in hindsight, as in `evals.arms.tuned`). `evals.arms.sglang` has the emulation.
"""

from evals.arms.best_run import as_chosen, best_run
from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.result.metrics import CaseRun

CHUNK = 8192  # SGLang's default on GPUs of 60 to 160 GB
CHUNKS = (CHUNK, 512, 1024, 2048, 4096, 16384)


def run_sglang(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:  # noqa: ARG001  as every arm
    """SGLang's defaults."""
    return run_with_chunk(case, CHUNK)


def run_sglang_tuned(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:  # noqa: ARG001
    """The best run over CHUNKS; `chosen` has `chunked_prefill_size`."""
    chunk, best = best_run(case, CHUNKS, lambda size: run_with_chunk(case, size))
    return as_chosen(best, case.profile, {"chunked_prefill_size": chunk})


def run_with_chunk(case: SimulatedCase, chunk: int) -> CaseRun:
    """One run with `chunk` prompt tokens per prefill step."""
    from evals.arms.sglang import EmulatedSGLang

    engine = EmulatedSGLang(case.profile, case.settings, chunked_prefill_size=chunk)
    outcomes = engine.run(case.requests, until_s=case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens)

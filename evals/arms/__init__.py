"""Whom is H-MAS compared with? One function per kind of arm, all with the same signature.

`evals.suite.contenders` lists the arms and their kinds.
"""

from collections.abc import Callable

from evals.arms.case import SimulatedCase
from evals.arms.clairvoyant import run_clairvoyant
from evals.arms.engine import BuildEngine, build_simulated
from evals.arms.fixed import run_fixed
from evals.arms.hindsight import run_hindsight
from evals.arms.loop import run_loop
from evals.arms.sglang import run_sglang
from evals.arms.stock import run_stock
from evals.arms.switching import run_switching
from evals.result.metrics import CaseRun
from evals.suite.contenders import Kind


def _search(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    return run_clairvoyant(case, lambda other: run_case(other, build_engine))


RUN: dict[Kind, Callable[[SimulatedCase, BuildEngine], CaseRun]] = {
    "stock": run_stock,
    "sglang": run_sglang,
    "fixed": run_fixed,
    "switching": run_switching,
    "loop": run_loop,
    "hindsight": run_hindsight,
    "clairvoyant": _search,
}


def run_case(case: SimulatedCase, build_engine: BuildEngine = build_simulated) -> CaseRun:
    """Run one case until everything is served or its time is over."""
    return RUN[case.arm.kind](case, build_engine)

"""How does one policy do for the whole run, and which one does best in hindsight?

The arms `fixed-NAME...` and `hindsight-fixed`, which runs every policy on the case, with the
step sized by slack and with all rules (neither set is always the better one), and keeps the
best: 24 runs of the case, whatever else the suite runs.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from evals.arms import ALL_RULES, Arm, parse_arm
from evals.baselines.arm_run import ArmRun, OnProgress, Parts
from evals.baselines.steering import RENEW_S, Steering
from evals.recording import RecordedEngine
from evals.sim_engine import BuildEngine
from serving.policies import POLICIES

if TYPE_CHECKING:
    from evals.simulated_case import SimulatedCase

CANDIDATES = tuple(
    f"fixed-{policy}+{rules}" for policy in POLICIES for rules in ("slack", ALL_RULES)
)


def run_fixed(
    case: "SimulatedCase", arm: Arm, on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """The policy and the rules of `arm`, a fixed one, in force from before the first arrival."""
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, arm.name)
    steering.put_in_force(arm, "fixed for the whole run")
    tickers = ((RENEW_S, steering.renew),)
    outcomes = engine.run(case.requests, tickers, case.until_s, on_progress)
    return ArmRun(outcomes, recorded.decisions, engine.recomputed_tokens)


def run_candidates(
    case: "SimulatedCase", parts: Parts, build_engine: BuildEngine
) -> dict[str, ArmRun]:
    """The runs of CANDIDATES by name, best first; of equals the simpler one."""
    runs = {
        name: replace(
            run_fixed(case, parse_arm(name), parts.next(), build_engine), chosen={"fixed": name}
        )
        for name in CANDIDATES
    }
    return {name: runs[name] for name in sorted(runs, key=lambda name: -case.met(runs[name]))}


def run_hindsight_fixed(
    case: "SimulatedCase", on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """The run of the fixed arm that was best on these very requests; `chosen` names it."""
    parts = Parts(on_progress, len(CANDIDATES), len(case.requests))
    return next(iter(run_candidates(case, parts, build_engine).values()))

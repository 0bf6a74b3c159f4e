"""How does one policy do for the whole run? The arms `fixed-NAME...`."""

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.arms.steering import RENEW_S, Steering
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import Arm


def run_fixed(case: SimulatedCase, arm: Arm, build_engine: BuildEngine) -> CaseRun:
    """The policy and the rules of `arm`, a fixed one, in force from before the first arrival."""
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, arm.name)
    steering.put_in_force(arm, "fixed for the whole run")
    tickers = ((RENEW_S, steering.renew),)
    outcomes = engine.run(case.requests, tickers, case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens, recorded.decisions)

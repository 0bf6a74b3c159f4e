"""What is switching worth when nobody thinks? The arm `random-switching`.

At each long tick of the controller a policy is drawn from those it may choose from, under
the rules that the controller begins with.
"""

import random

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.arms.steering import Steering
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config, parse_arm


def run_random_switching(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """Policies drawn by the case's seed, the first before the first arrival."""
    control = controller_config(case.controller, {}).control
    rules = "".join(f"+{rule}" for rule in control.start_rules)
    draw = random.Random(case.seed)
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)

    def tick() -> None:
        policy = draw.choice(control.allow_policies)
        steering.put_in_force(parse_arm(f"fixed-{policy}{rules}"), "drawn at random")

    tick()
    outcomes = engine.run(case.requests, ((control.long_tick_s, tick),), case.until_s)
    return case.ran(outcomes, engine.recomputed_tokens, recorded.decisions)

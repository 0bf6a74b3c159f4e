"""What could switching be worth to somebody who knows what comes? `hindsight-switching`.

At each long tick of the controller it takes, of the arms in the case's shortlist (see
`evals.sim.hindsight`), the one under which most requests have met their SLOs at the end of the
next window, with the arrivals as they come.

This is a lower bound on the best switching in hindsight, not the optimum: it is greedy, it
looks two windows ahead, it has three choices, and only the ticks to switch at.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from evals.arms.best_run import best_run
from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine
from evals.arms.steering import Steering
from evals.result.metrics import CaseRun, Facts
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config, parse_arm

HORIZON_WINDOWS = 2  # most requests that a window admits have left by the end of the next


def run_hindsight_switching(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """One run in which each window gets the fixed arm of the shortlist that pays best.

    Of equals the one in force stays. Every choice is tried by a run from the start, which repeats
    what was chosen before: a run takes less time than a copy of its middle would take to make.
    """
    window_s = controller_config(case.controller, {}).control.long_tick_s
    taken: list[str] = []
    run = case.ran(())
    for window in range(math.ceil(case.until_s / window_s)):
        end_s = min((window + HORIZON_WINDOWS) * window_s, case.until_s)

        def follow(name: str, end_s: float = end_s) -> CaseRun:
            return _follow(case, [*taken, name], window_s, end_s, build_engine)

        choices = sorted(case.shortlist, key=lambda name: name not in taken[-1:])
        best, run = best_run(case, choices, follow)
        taken.append(best)
    chosen: Facts = {"shortlist": ", ".join(case.shortlist), "switches": len(run.decisions) - 1}
    return replace(run, chosen=chosen)


def _follow(
    case: SimulatedCase, arms: Sequence[str], window_s: float, end_s: float,
    build_engine: BuildEngine,
) -> CaseRun:  # fmt: skip
    """A run until `end_s` with one arm per window; the last one stays."""
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)
    coming = iter(arms)

    def tick() -> None:
        name = next(coming, steering.in_force)
        if name == steering.in_force:
            steering.renew()
        else:
            reason = "best of the shortlist by the end of the next window"
            steering.put_in_force(parse_arm(name), reason)

    tick()
    outcomes = engine.run(case.requests, ((window_s, tick),), end_s)
    return case.ran(outcomes, engine.recomputed_tokens, recorded.decisions)

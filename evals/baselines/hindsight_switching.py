"""What could switching be worth to somebody who knows what comes? `hindsight-switching`.

At each long tick of the controller it takes, of the arms in the case's shortlist (see
`evals.hindsight`), the one under which most requests have met their SLOs at the end of the
next window, with the arrivals as they come.

This is a lower bound on the best switching in hindsight, not the optimum: it is greedy, it
looks two windows ahead, it has three choices, and only the ticks to switch at.
"""

from dataclasses import replace

from evals.arms import controller_config, parse_arm
from evals.baselines.rollouts import Rollouts
from evals.baselines.steering import Steering
from evals.recording import RecordedEngine
from evals.sim_engine import BuildEngine
from evals.simulated_case import ArmRun, Chosen, OnProgress, SimulatedCase

HORIZON_WINDOWS = 2  # most requests that a window admits have left by the end of the next


def run_hindsight_switching(
    case: SimulatedCase, on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """One run in which each window gets the fixed arm of the shortlist that pays best.

    Of equals the one in force stays.
    """
    window_s = controller_config(case.controller, {}).control.long_tick_s
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)
    rollouts = Rollouts(
        engine.now, lambda: sum(counter.met for counter in engine.snapshot().counters)
    )

    def switch_to(name: str) -> None:
        reason = "best of the shortlist by the end of the next window"
        steering.put_in_force(parse_arm(name), reason)

    def tick() -> None:
        rollouts.leave_if_over()
        if rollouts.in_copy:
            return
        choices = sorted(case.shortlist, key=lambda name: name != steering.in_force)
        scores = rollouts.try_each(choices, switch_to, HORIZON_WINDOWS * window_s)
        if scores:
            best = choices[scores.index(max(scores))]
            if best == steering.in_force:
                steering.renew()
            else:
                switch_to(best)

    def report(finished: int) -> None:
        if not rollouts.in_copy:
            on_progress(finished)

    with rollouts.around_run():
        tick()
        outcomes = engine.run(case.requests, ((window_s, tick),), case.until_s, report)
    run = ArmRun(outcomes, recorded.decisions, engine.recomputed_tokens)
    chosen: Chosen = {"shortlist": ", ".join(case.shortlist), "switches": len(run.decisions) - 1}
    return replace(run, chosen=chosen)

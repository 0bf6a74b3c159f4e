"""What could switching be worth to somebody who knows what comes? `hindsight-switching`.

At each long tick of the controller it takes, of the three fixed arms that are best on this
case (see `evals.baselines.fixed`), the one under which most requests have met their SLOs at
the end of the next window, with the arrivals as they come. Where staying with one turns out
better than that, it stays: so it is never below `hindsight-fixed`.

This is a lower bound on the best switching in hindsight, not the optimum: it is greedy, it
looks two windows ahead, it has three choices, and only the ticks to switch at. A case is run
24 times for the fixed arms, once with the switches, and every window of it six times.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from evals.arms import controller_config, parse_arm
from evals.baselines.arm_run import ArmRun, Chosen, OnProgress, Parts
from evals.baselines.fixed import CANDIDATES, run_candidates
from evals.baselines.rollouts import Rollouts
from evals.baselines.steering import Steering
from evals.recording import RecordedEngine
from evals.sim_engine import BuildEngine

if TYPE_CHECKING:
    from evals.simulated_case import SimulatedCase

SHORTLIST = 3
HORIZON_WINDOWS = 2  # most requests that a window admits have left by the end of the next


def run_hindsight_switching(
    case: "SimulatedCase", on_progress: OnProgress, build_engine: BuildEngine
) -> ArmRun:
    """The better of greedy switching and the best fixed arm; `chosen` says which."""
    greedy_parts = 1 + SHORTLIST * HORIZON_WINDOWS
    parts = Parts(on_progress, len(CANDIDATES) + greedy_parts, len(case.requests))
    fixed = run_candidates(case, parts, build_engine)
    shortlist = list(fixed)[:SHORTLIST]
    switching = run_greedy(case, shortlist, parts.next(greedy_parts), build_engine)
    stay = fixed[shortlist[0]]
    return stay if case.met(stay) >= case.met(switching) else switching


def run_greedy(
    case: "SimulatedCase",
    shortlist: list[str],
    on_progress: OnProgress,
    build_engine: BuildEngine,
) -> ArmRun:
    """One run in which each window gets the fixed arm of `shortlist` that pays best.

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
        choices = sorted(shortlist, key=lambda name: name != steering.in_force)
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
    chosen: Chosen = {"shortlist": ", ".join(shortlist), "switches": len(run.decisions) - 1}
    return replace(run, chosen=chosen)

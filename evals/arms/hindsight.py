"""What could one know afterwards? `hindsight-fixed` and `hindsight-switching`.

`hindsight-fixed` is the best of `FIXED_ARMS` on the very requests that count.
`hindsight-switching` takes at each long tick, of the best three of them, the one under which most
requests have met their SLOs at the end of the next window, with the arrivals as they come; where
the best fixed arm does better, it is that one. A lower bound on the best switching, not the
optimum: it is greedy, looks two windows ahead, has three choices, and only the ticks to switch at.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, build_simulated
from evals.arms.fixed import FIXED_ARMS, run_fixed, serve_fixed
from evals.arms.switching import follow
from evals.result.metrics import CaseRun, Facts
from evals.suite.arms import controller_config, parse_arm
from serving.engines.offered import columns

SHORTLIST = 3
HORIZON_WINDOWS = 2  # most requests that a window admits have left by the end of the next


def run_hindsight(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The best fixed arm, or the better of switching and staying."""
    ranked, best = rank_fixed(case, build_engine)
    best = replace(best, arm=case.arm.name, chosen={"fixed": ranked[0]})
    if case.arm.name == "hindsight-fixed":
        return best
    switching = switch_greedily(case, ranked[:SHORTLIST], build_engine)
    return switching if case.met(switching) > case.met(best) else best


def rank_fixed(
    case: SimulatedCase, build_engine: BuildEngine
) -> tuple[tuple[str, ...], CaseRun]:
    """`FIXED_ARMS` on the case's requests, best first, of equals the first; and the best run."""
    workload = columns(case.requests, case.profile)
    targets_ms, counted, met = case.targets_ms(), case.counted, dict[str, int]()
    for name in FIXED_ARMS:
        engine = build_simulated(case.profile, case.settings, False)
        served = serve_fixed(engine, case, parse_arm(name), workload, case.requests)
        met[name] = int((served.met(targets_ms) & counted).sum())
    ranked = tuple(sorted(met, key=lambda name: -met[name]))
    return ranked, run_fixed(replace(case, arm=parse_arm(ranked[0])), build_engine)


def switch_greedily(
    case: SimulatedCase, shortlist: tuple[str, ...], build_engine: BuildEngine
) -> CaseRun:
    """One run in which each window gets the fixed arm of the shortlist that pays best.

    Of equals the one in force stays. Every choice is tried by a run from the start, which repeats
    what was chosen before: a run takes less time than a copy of its middle would take to make.
    """
    window_s = controller_config(case.controller, {}).control.long_tick_s
    taken: list[str] = []
    run = case.ran(())
    for window in range(math.ceil(case.span.until_s / window_s)):
        end_s = min((window + HORIZON_WINDOWS) * window_s, case.span.until_s)
        runs = {}
        for name in sorted(shortlist, key=lambda name: name not in taken[-1:]):
            coming = iter([*taken, name])
            last = name

            def choose(coming: Iterator[str] = coming, last: str = last) -> str:
                return next(coming, last)

            reason = "best of the shortlist by the end of the next window"
            runs[name] = follow(case, build_engine, reason, choose, end_s)
        best = max(runs, key=lambda name: case.met(runs[name]))
        taken.append(best)
        run = runs[best]
    chosen: Facts = {"shortlist": ", ".join(shortlist), "switches": len(run.decisions) - 1}
    return replace(run, chosen=chosen)

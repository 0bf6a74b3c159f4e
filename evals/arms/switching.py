"""What is switching between fixed arms worth, without H-MAS's agents?

At each long tick of the controller `random-switching` draws a policy, `threshold` and `tree` go by
the controller's states: control that needs no model, trained on the development half
(`evals.sim.tune_tree`).
"""

import random
from collections.abc import Callable
from dataclasses import replace

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, run_on
from evals.arms.states import StateReader
from evals.arms.steering import Steering
from evals.arms.tree import leaf_of
from evals.result.metrics import CaseRun, Facts
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config

States = dict[str, float]


def run_switching(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The arm's way to choose, from before the first arrival on."""
    if case.arm.name == "random-switching":
        control = controller_config(case.controller, {}).control
        rules = "".join(f"+{rule}" for rule in control.start_rules)
        draw = random.Random(case.seed)
        return follow(
            case, build_engine, "drawn at random",
            lambda: f"fixed-{draw.choice(control.allow_policies)}{rules}",
        )  # fmt: skip
    tuned = case.tuned_machine
    nodes = tuned.threshold if case.arm.name == "threshold" else tuned.tree
    return follow_states(case, build_engine, lambda states: leaf_of(nodes, states))


def follow(
    case: SimulatedCase, build_engine: BuildEngine, reason: str, choose: Callable[[], str],
    until_s: float | None = None,
) -> CaseRun:  # fmt: skip
    """A run in which `choose` names the fixed arm of each window that begins."""
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)

    def tick() -> None:
        steering.go_on_with(choose(), reason)

    tick()
    tickers = ((window_s(case), tick),)
    return _switched(run_on(engine, case, tickers, recorded.decisions, until_s=until_s))


def follow_states(
    case: SimulatedCase, build_engine: BuildEngine, choose: Callable[[States], str]
) -> CaseRun:
    """The same by what the controller's states say at the end of each window.

    Before anything has come, and before the first request, the states are zeros.
    """
    config = controller_config(case.controller, {})
    engine = build_engine(case.profile, case.settings, False)
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)
    reader = StateReader(recorded, config)

    def tick() -> None:
        steering.go_on_with(choose(reader.read()), "by the states")

    tick()
    tickers = ((config.control.short_tick_s, reader.look), (window_s(case), tick))
    return _switched(run_on(engine, case, tickers, recorded.decisions))


def window_s(case: SimulatedCase) -> float:
    """How long a choice holds: the long tick of the case's configuration."""
    return controller_config(case.controller, {}).control.long_tick_s


def _switched(run: CaseRun) -> CaseRun:
    chosen: Facts = {"switches": len(run.decisions) - 1}
    return replace(run, chosen=chosen)

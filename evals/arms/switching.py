"""What is switching between fixed arms worth, without H-MAS's agents?

At each long tick of the controller `random-switching` draws a policy, `threshold` and `tree` go by
the controller's own two states: control that needs no model, trained on the development half
(`evals.sim.tune`).

The tree is small, cost-sensitive and greedy. A row is one window of one run: the states at its
start, and for each setting how many of the window's requests missed their SLOs. A split is chosen
so that the best setting of each side leaves the fewest misses (as in CART, Breiman et al. 1984,
with the misses in place of an impurity). `threshold` is the tree of depth 1.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, run_on
from evals.arms.steering import Steering
from evals.result.metrics import CaseRun, Facts
from evals.result.recording import RecordedEngine
from evals.suite.arms import controller_config
from evals.suite.tuned import Node
from hmas_agents.config import Config
from hmas_agents.engine_watch import EngineWatch
from hmas_agents.states import LongState, ShortState
from serving.engines.protocol import Engine

STATES = (
    "load", "rate_rps", "rate_trend", "dispersion", "prompt_p50", "prompt_p90", "output_p50",
    "psi_lengths", "missed", "missed_ttft", "missed_tpot", "waiting", "running",
    "queued_prefill_s", "oldest_wait_s", "hopeless_share", "decode_slack_s", "kv_used",
    "kv_predicted_peak", "preemptions_per_s",
)  # fmt: skip
_SLACK_WITHOUT_DECODES_S = 1.0
Floats = NDArray[np.float64]
_CUTS = 24  # thresholds tried per state: quantiles
_LEAST_SHARE = 0.04  # of all rows in a leaf, so that no leaf is about a single run
_LEAST_GAIN = 0.002  # of all misses: less is chance
States = dict[str, float]


class StateReader:
    """Follows one engine, as the control loop does."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._watch = EngineWatch(engine, config, None)

    def look(self) -> None:
        """Take in what happened since the last look; at each short tick."""
        self._watch.look()

    def read(self) -> dict[str, float]:
        """The states now, by name."""
        _, short = self._watch.look()
        return state_values(short, self._watch.long_state())


def state_values(short: ShortState, long: LongState) -> dict[str, float]:
    """Numbers that a threshold can be set on; what is not known yet reads as all is well."""
    slack_s, attainment = short.decode_slack_p10_s, long.attainment
    values = (
        long.load or 0.0, long.rate_rps, long.rate_trend,
        max(long.dispersion.values(), default=0.0),
        long.prompt_p50 or 0.0, long.prompt_p90 or 0.0, long.output_p50 or 0.0, long.psi_lengths,
        0.0 if attainment is None else 1.0 - attainment,
        long.misses.get("ttft_queue", 0.0) + long.misses.get("ttft_execution", 0.0),
        long.misses.get("tpot", 0.0),
        float(short.waiting), float(short.running), short.queued_prefill_s, short.oldest_wait_s,
        short.hopeless_share, _SLACK_WITHOUT_DECODES_S if slack_s is None else slack_s,
        short.kv_used, short.kv_predicted_peak, short.preemptions_per_s,
    )  # fmt: skip
    return dict(zip(STATES, values, strict=True))


def leaf_of(nodes: Sequence[Node], states: Mapping[str, float]) -> str:
    """The setting that a tree says."""
    node = nodes[0]
    while len(node) > 1:
        name, threshold, below, above = node
        node = nodes[above if states[name] > threshold else below]
    return node[0]


def grow(
    states: Floats, misses: Floats, names: Sequence[str], settings: Sequence[str], depth: int
) -> tuple[Node, ...]:
    """A tree with at most `depth` splits above a leaf; node 0 is its root.

    `states` has shape (rows, names), `misses` under each setting (rows, settings); of equal
    settings the first is taken.
    """
    nodes: list[Node] = []
    least_rows = max(1, int(_LEAST_SHARE * len(states)))
    least_gain = _LEAST_GAIN * float(misses.sum(axis=0).min())

    def add(rows: NDArray[np.bool_], depth: int) -> int:
        place = len(nodes)
        nodes.append((settings[int(misses[rows].sum(axis=0).argmin())],))
        best, gain = None, least_gain
        for column in range(len(names)) if depth else ():
            for cut in _cuts(states[rows, column]):
                above = rows & (states[:, column] > cut)
                below = rows & ~above
                if min(above.sum(), below.sum()) < least_rows:
                    continue
                gained = _fewest(misses[rows]) - _fewest(misses[above]) - _fewest(misses[below])
                if gained > gain:
                    best, gain = (column, cut, below, above), gained
        if best is not None:
            column, cut, below, above = best
            nodes[place] = (
                names[column], cut, add(below, depth - 1), add(above, depth - 1)
            )  # fmt: skip
        return place

    add(np.ones(len(states), np.bool_), depth)
    return tuple(nodes)


def _fewest(misses: Floats) -> float:
    return float(misses.sum(axis=0).min())


def _cuts(values: Floats) -> list[float]:
    """Thresholds between values that occur, at most `_CUTS`."""
    found = np.unique(values)
    middles = (found[1:] + found[:-1]) / 2
    if len(middles) > _CUTS:
        middles = np.unique(np.quantile(middles, np.linspace(0, 1, _CUTS), method="nearest"))
    return [float(cut) for cut in middles]


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

"""Which situations does a case bring, and what is each setting truly worth in the minute to come?

A case of a suite is served once. At a few moments of it the engine is as it is, what really comes
is known, and every setting of a fixed list is tried on that: a branch of the compiled engine, with
the true arrivals and answers. What the controller's states were then goes with it, and on the half
that is reported what each contender chose. Called by `evals.agent.situation_run`.

In force is in turn what H-MAS starts with, and a setting drawn by seed.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from evals.agent.learners import Learnt
from evals.agent.namers import Chosen, choices
from evals.arms.case import SimulatedCase
from evals.arms.engine import build_simulated
from evals.arms.fixed import start_arm
from evals.arms.steering import Steering
from evals.arms.switching import States, state_values
from evals.suite.arms import controller_config, parse_arm
from hmas_agents.choice import Key, key_of
from hmas_agents.engine_watch import EngineWatch
from hmas_agents.situation import Situation
from hmas_agents.twin.candidates import differing
from hmas_agents.twin.forecast import branches_of
from hmas_agents.twin.futures import TAIL, weights_inside
from hmas_agents.twin.question import Candidate
from serving.contracts import Snapshot
from serving.contracts.rules import OFF, RULES
from serving.engines.branches import Drawn
from serving.engines.offered import longest_answer

MOMENTS = 3  # of a case, evenly over what counts
# What arrives within it counts, and traffic goes on behind it, as in the twin.
HORIZON_S = 60.0
UNTIL_S = (1.0 + TAIL) * HORIZON_S
_ORDERS = ("edf", "edf:kappa=3", "edf:kappa=10", "edf:kappa=30", "srpt", "srpt:rho=0")
_RULES = (
    "", "+slack", "+slack+serial", "+slack+triage", "+slack+serial+triage",
    "+slack+serial+triage+pace",
)  # fmt: skip
# What a namer may name: orders that the controller allows, under rules that have paid.
SETTINGS = tuple(f"fixed-{order}{rules}" for order in _ORDERS for rules in _RULES)


@dataclass(frozen=True, slots=True)
class Row:
    """One situation.

    Attributes:
        scenario, load, seed, at_s: where it was taken.
        in_force: the setting.
        states: the controller's, by name.
        worths: what each of `SETTINGS` is truly worth, in their order.
        best: the worth of the best of these, and of what anybody chose.
        chosen: by contender; none on the half that is learnt from.
    """

    scenario: str
    load: float
    seed: int
    at_s: float
    in_force: str
    states: States
    worths: tuple[float, ...]
    best: float
    chosen: Mapping[str, Chosen] = field(default_factory=dict)


def rows_of(job: tuple[SimulatedCase, Learnt | None]) -> list[Row]:
    """The situations of one case; what contenders choose only where there is what they learnt."""
    case, learnt = job
    config = controller_config(case.controller, {})
    engine = build_simulated(case.profile, case.settings, False)
    watch = EngineWatch(engine, config, None)
    steering = Steering(engine, case.profile, case.title)
    start, draw = start_arm(case), random.Random(case.seed)
    longest, rows = longest_answer(case.requests), list[Row]()

    def go_on() -> None:
        name = draw.choice(SETTINGS) if len(rows) % 2 else start
        steering.put_in_force(parse_arm(name), "the next one")

    def look() -> None:
        _, short = watch.look()
        done = (len(rows) + 0.5) / MOMENTS
        due_s = case.span.warmup_s + done * case.span.counted_s
        if len(rows) == MOMENTS or engine.now() < due_s:
            return
        situation = watch.situation()
        states = state_values(short, situation.state)
        rows.append(_row(case, situation, states, steering.in_force, longest, learnt))
        go_on()

    go_on()
    engine.run(case.requests, ((config.control.short_tick_s, look),), case.span.until_s)
    return rows


def _row(
    case: SimulatedCase, situation: Situation, states: States, in_force: str, longest: int,
    learnt: Learnt | None,
) -> Row:  # fmt: skip
    truth = Truth(case, situation, longest)
    settings = [candidate_of(name, situation.snapshot) for name in SETTINGS]
    worths = [truth.worth(each) for each in settings]
    named = dict(zip(SETTINGS, settings, strict=True))
    chosen: Mapping[str, Chosen] = {}
    if learnt is not None:
        chosen = choices(situation, states, learnt, named, truth.worth, case.controller)
    return Row(
        case.scenario, case.load, case.seed, situation.snapshot.now_s, in_force, states,
        tuple(worths), truth.best, chosen,
    )  # fmt: skip


def candidate_of(name: str, snapshot: Snapshot) -> Candidate:
    """A fixed arm as the twin tries it: its order, its rules and no others."""
    arm = parse_arm(name)
    limits = {each: OFF[each] for rule in RULES.values() for each in rule}
    for rule in arm.rules:
        limits |= RULES[rule]
    return Candidate(arm.policy, dict(arm.params), differing(snapshot, limits))


class Truth:
    """What truly comes after a situation, for settings to be tried on.

    Attributes:
        best: the most that any setting tried so far is worth.
    """

    def __init__(self, case: SimulatedCase, situation: Situation, longest: int) -> None:
        now_s, inside = situation.snapshot.now_s, situation.inside.requests
        coming = [
            replace(one, arrival_s=one.arrival_s - now_s, max_tokens=one.max_tokens or longest)
            for one in case.requests
            if now_s < one.arrival_s <= now_s + UNTIL_S
        ]
        weight_of = situation.settings.contract.weight_of
        counts = np.array(
            [(r.arrival_s < HORIZON_S) * weight_of(r.tenant, r.slo_class) for r in coming]
        )
        answers = [case.requests[int(one.request_id[1:])].output_tokens for one in inside]
        drawn = Drawn(
            np.arange(len(coming)), np.array([one.arrival_s for one in coming]),
            np.array([one.output_tokens for one in coming], np.int32),
            np.array(answers, np.int32), np.concatenate([weights_inside(situation), counts]),
        )  # fmt: skip
        self._limits, self._known = situation.limits, dict[Key, float]()
        self._branches = branches_of(situation, coming)
        self._trial = self._branches.trial(drawn)
        self.best = 0.0

    def worth(self, candidate: Candidate) -> float:
        """See `Forecast`: 0..1, by the contract's weights. Every setting is tried once."""
        key = key_of(candidate.policy, candidate.params, candidate.limits)
        if key not in self._known:
            limits = replace(self._limits, **candidate.limits)
            self._known[key] = self._branches.forecast(
                self._trial, candidate.policy, candidate.params, limits, UNTIL_S
            ).worth
            self.best = max(self.best, self._known[key])
        return self._known[key]

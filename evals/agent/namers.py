"""Who chooses a setting in a situation, and what? Rules, learners, and the twin with named ones.

The twin has the budget of work of a live decision, whatever it tries. Settings that somebody names
come first and are tried on every future, as in the long horizon; the twin's own come after them.
`best` is named by the truth, and no namer can know better.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals.agent.learners import Learnt
from evals.arms.switching import States
from evals.suite.arms import ControllerOptions, controller_config
from graphs.long_horizon import note
from hmas_agents import rule_table
from hmas_agents.choice import choose, key_of
from hmas_agents.config import Config
from hmas_agents.guardrails import OK
from hmas_agents.records import Proposal
from hmas_agents.situation import Situation
from hmas_agents.twin.candidates import candidates_for
from hmas_agents.twin.process import InProcess
from hmas_agents.twin.question import Candidate
from hmas_agents.twin.twin import Twin

OWN = (8, 32, 128)  # candidates of the twin's own
BESIDE = 32  # of them beside what is named
NAMED = 3  # of the neighbours' settings: a model's reply has as many at most
IN_FORCE, RULES, FIXED, TREE, NEIGHBOURS = (
    "in force", "rules", "best fixed", "tree", "neighbours",
)  # fmt: skip
BEST = "best"


def twin_name(own: int, namer: str = "") -> str:
    """What the contender is called."""
    return f"twin {own}, {namer} named" if namer else f"twin {own}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a contender put in force: its true worth, and what the twin took to find it."""

    worth: float
    changed: bool  # another setting than was in force
    work_s: float = 0.0
    tried: int = 0  # settings that entered the search


def choices(
    situation: Situation, states: States, learnt: Learnt, named: Mapping[str, Candidate],
    worth: Callable[[Candidate], float], options: ControllerOptions,
) -> dict[str, Chosen]:  # fmt: skip
    """What each contender chooses.

    Args:
        situation: where.
        states: the controller's.
        learnt: on the development half.
        named: what may be named, by name.
        worth: the true one of a candidate.
        options: of the controller.
    """
    config = controller_config(options, {})
    stay = Candidate(situation.snapshot.policy, dict(situation.snapshot.params))
    said = rule_table.choose(situation.state)
    neighbours = [named[name] for name in learnt.neighbours.ranked(states)]
    tree = [named[name] for name in learnt.tree.ranked(states)]
    found = {
        name: Chosen(worth(one), _key(one) != _key(stay))
        for name, one in (
            (IN_FORCE, stay), (RULES, Candidate(said.policy, dict(said.params))),
            (FIXED, named[learnt.best_fixed]), (TREE, tree[0]), (NEIGHBOURS, neighbours[0]),
        )
    }  # fmt: skip
    asked: list[tuple[int, str, Sequence[Candidate]]] = [(own, "", ()) for own in OWN]
    asked += [
        (BESIDE, TREE, tree), (BESIDE, NEIGHBOURS, neighbours[:NAMED]),
        (BESIDE, BEST, [max(named.values(), key=worth)]),
    ]  # fmt: skip
    for own, namer, first in asked:
        found[twin_name(own, namer)] = _by_twin(situation, config, [stay, *first], own, worth)
    return found


def _by_twin(
    situation: Situation, config: Config, first: Sequence[Candidate], own: int,
    worth: Callable[[Candidate], float],
) -> Chosen:  # fmt: skip
    """What the long horizon would put in force of these, or what is in force.

    `first` begins with what is in force.
    """
    kept = {_key(one): one for one in first}
    others = candidates_for(situation.snapshot, config.control.allow_policies, own)
    every = list((kept | {_key(one): one for one in others if _key(one) not in kept}).values())
    twin = Twin(config.twin, forecaster=InProcess())
    predictions = twin.predict(situation, every, kept=len(kept))
    proposals = [Proposal("twin", each.policy, each.params, verdict=OK) for each in every]
    for proposal, prediction in zip(proposals, predictions, strict=True):
        if prediction is not None:
            note(proposal, prediction, predictions[0], twin)
    best, _ = choose(proposals[0], proposals[1:], None, twin_enabled=True)
    chosen = next(i for i, proposal in enumerate(proposals) if proposal is best)
    assert twin.answer is not None  # without a wall-clock limit there is one
    tried = sum(bool(seen) for seen in twin.answer.forecasts)
    return Chosen(worth(every[chosen]), chosen > 0, twin.answer.work_s, tried)


def _key(one: Candidate) -> object:
    return key_of(one.policy, one.params, one.limits)

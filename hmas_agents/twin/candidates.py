"""What should the twin try beside what was proposed? Hundreds of settings, near and far.

First every single change of what is in force: another policy or parameter, a rule on or off, a
bound on the batch or the step. Then combinations of several, drawn at random. What a rule agent
moves is left to it: the twin keeps limits as they are for its whole horizon, and would count as
gains what the agent brings anyway.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hmas_agents.choice import key_of
from hmas_agents.twin.question import Candidate
from serving.contracts import Snapshot
from serving.contracts.rules import KNOBS, OFF, RULES
from serving.policies import POLICIES

# Shares of what the server allows.
_BOUNDS: Mapping[str, tuple[float, ...]] = {
    "max_active_requests": (1.0, 0.75, 0.5, 0.25), "token_budget": (1.0, 0.5, 0.25),
}  # fmt: skip
_CHANGED = 0.25  # of the rules and bounds of a random candidate
_TRIES = 20  # for each that is wanted


def candidates_for(
    snapshot: Snapshot, allowed: Sequence[str], count: int, agents: Collection[str] = ()
) -> list[Candidate]:
    """At most `count` different ones, none of them what is in force. The same for one snapshot.

    Those that change least come first: the last ones are left out where forecasts are dear.

    Args:
        snapshot: the engine with what is in force.
        allowed: policies that may be chosen.
        count: how many.
        agents: rule agents that act, whose limits stay as they are.
    """
    found = {key_of(snapshot.policy, snapshot.params): Candidate("in force")}
    for each in _stream(snapshot, allowed, agents, _TRIES * count):
        if len(found) > count:
            break
        limits = differing(snapshot, each.limits, agents)
        candidate = Candidate(each.policy, each.params, limits)
        found.setdefault(key_of(each.policy, each.params, limits), candidate)
    others = list(found.values())[1:]
    return sorted(others, key=lambda each: (each.policy != snapshot.policy) + len(each.limits))


def differing(
    snapshot: Snapshot, limits: Mapping[str, Any], agents: Collection[str] = ()
) -> dict[str, Any]:
    """Those of some limits that are not in force already, and that no acting rule agent moves."""
    return {
        name: value
        for name, value in limits.items()
        if KNOBS[name].concern not in agents and getattr(snapshot.limits, name) != value
    }


def _stream(
    snapshot: Snapshot, allowed: Sequence[str], agents: Collection[str], tries: int
) -> Iterator[Candidate]:
    orders = [Candidate(name, params) for name in allowed for params in _params(name)]
    yield from orders
    changes = [change for change in _changes(snapshot) if differing(snapshot, change, agents)]
    for change in changes:
        yield Candidate(snapshot.policy, dict(snapshot.params), change)
    rng = np.random.default_rng(abs(round(snapshot.now_s)))
    for _ in range(tries if orders else 0):
        order = orders[int(rng.integers(len(orders)))]
        limits: dict[str, Any] = {}
        for change in changes:
            if rng.random() < _CHANGED:
                limits |= change
        yield Candidate(order.policy, order.params, limits)


def _params(policy: str) -> Iterator[dict[str, float]]:
    """The defaults, what is worth choosing between, and a value between each two of these."""
    yield {}
    for name, choices in POLICIES[policy].param_choices.items():
        between = [(low * high) ** 0.5 or high / 2 for low, high in itertools.pairwise(choices)]
        for value in (*choices, *between):
            yield {name: round(value, 2)}


def _changes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Each rule switched, and each bound at each share, as fields of `Limits`."""
    limits, changes = snapshot.limits, []
    for rule in RULES.values():
        acts = any(getattr(limits, name) for name in rule)
        changes.append({name: OFF[name] if acts else on for name, on in rule.items()})
    for name, shares in _BOUNDS.items():
        most = getattr(snapshot.envelope, name)
        changes += [{name: max(1, int(share * most))} for share in shares]
    return changes

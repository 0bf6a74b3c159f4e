"""Which candidate goes live? The last word of the long horizon, as pure functions.

Called by `graphs.long_horizon` after the guardrails and the twin have spoken.
"""

from collections.abc import Sequence

from hmas_agents.forms import points
from hmas_agents.guardrails import OK
from hmas_agents.prediction import NOT_PURSUED
from hmas_agents.records import Proposal
from serving.policies import POLICIES, complete_params, format_policy

Key = tuple[str, tuple[tuple[str, float], ...]]


def key_of(policy: str, params: dict[str, float]) -> Key:
    """Two candidates with the same key are the same to the engine."""
    try:
        complete = complete_params(policy, params)
    except ValueError:  # the guardrails will say so; here it only has to differ
        complete = params
    return policy, tuple(sorted(complete.items()))


def worth_trying(
    incumbent: Proposal, allowed: Sequence[str], start: tuple[str, dict[str, float]]
) -> list[tuple[str, dict[str, float]]]:
    """What the twin should try beside what was proposed.

    The policy that control starts with; every allowed one with its defaults and, where its
    parameters have choices, with those next to the value in force (of another policy: to the
    default).
    """
    found = [start]
    for name in allowed:
        in_force = incumbent.params if name == incumbent.policy else {}
        found.append((name, {}))
        for key, choices in POLICIES[name].param_choices.items():
            value = in_force.get(key, POLICIES[name].default_params[key])
            below = [choice for choice in choices if choice < value]
            above = [choice for choice in choices if choice > value]
            found += [(name, in_force | {key: choice}) for choice in below[-1:] + above[:1]]
    return found


def choose(
    incumbent: Proposal,
    proposals: Sequence[Proposal],
    rollback: Proposal | None,
    twin_enabled: bool,
) -> tuple[Proposal, str]:
    """The candidate to put in force, and why. The incumbent itself means no change.

    - A rollback that is due goes through unless the twin predicts worse for it.
    - With the twin, the largest gain over the incumbent wins if it exceeds its own margin;
      without a prediction nothing moves, whoever proposed it.
    - With the twin disabled by configuration, the rule table's proposal goes through on
      the guardrails' word alone; the model's never does.
    """
    if rollback is not None and not _worse(rollback):
        return rollback, rollback.reason
    moves = [p for p in proposals if p.verdict == OK]
    if not moves:
        return incumbent, "no proposal passed the guardrails or differs: stay"
    if not twin_enabled:
        return _by_rule(incumbent, moves)
    return _by_prediction(incumbent, moves)


def _by_rule(incumbent: Proposal, moves: Sequence[Proposal]) -> tuple[Proposal, str]:
    for proposal in moves:
        if proposal.source == "rules":
            return proposal, f"twin disabled, rule table: {proposal.reason}"
    return incumbent, "twin disabled, and the rule table proposes no change: stay"


def _by_prediction(incumbent: Proposal, moves: Sequence[Proposal]) -> tuple[Proposal, str]:
    policy = format_policy(incumbent.policy, incumbent.params)
    known = [(p.gain, p.margin, p) for p in moves if p.gain is not None and p.margin is not None]
    if not known:
        of = f"; {policy} alone has one" if incumbent.predicted is not None else ""
        return incumbent, f"no candidate has a prediction{of}: stay"
    enough = [item for item in known if item[0] > item[1]]
    gain, margin, best = max(enough or known, key=lambda item: item[0])
    if not enough and margin >= NOT_PURSUED:
        return incumbent, f"no candidate leads {policy} by enough to be tried further: stay"
    if not enough:
        name = format_policy(best.policy, best.params)
        must = f"must exceed {points(margin)}"
        return incumbent, f"the best lead, {points(gain)} of {name}, {must}: stay"
    return best, f"twin predicts {points(gain)} over {policy}, more than {points(margin)}"


def _worse(candidate: Proposal) -> bool:
    return candidate.gain is not None and candidate.gain < 0

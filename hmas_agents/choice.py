"""Which candidate goes live? The last word of the long horizon, as pure functions.

Called by `graphs.long_horizon` after the guardrails and the twin have spoken.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hmas_agents.forms import points, setting_text
from hmas_agents.guardrails import OK
from hmas_agents.records import Proposal
from hmas_agents.twin.prediction import NOT_PURSUED
from serving.policies import complete_params

Key = tuple[str, tuple[tuple[str, float], ...], tuple[tuple[str, Any], ...]]


def key_of(
    policy: str, params: Mapping[str, float], limits: Mapping[str, Any] | None = None
) -> Key:
    """Two candidates with the same key are the same to the engine."""
    try:
        complete: Mapping[str, float] = complete_params(policy, params)
    except ValueError:  # the guardrails will say so; here it only has to differ
        complete = params
    return policy, tuple(sorted(complete.items())), tuple(sorted((limits or {}).items()))


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
    policy = setting_text(incumbent)
    known = [(p.gain, p.margin, p) for p in moves if p.gain is not None and p.margin is not None]
    if not known:
        of = f"; {policy} alone has one" if incumbent.predicted is not None else ""
        return incumbent, f"no candidate has a prediction{of}: stay"
    enough = [item for item in known if item[0] > item[1]]
    gain, margin, best = max(enough or known, key=lambda item: item[0])
    if not enough and margin >= NOT_PURSUED:
        return incumbent, f"no candidate leads {policy} by enough to be tried further: stay"
    if not enough:
        name = setting_text(best)
        must = f"must exceed {points(margin)}"
        return incumbent, f"the best lead, {points(gain)} of {name}, {must}: stay"
    return best, f"twin predicts {points(gain)} over {policy}, more than {points(margin)}"


def _worse(candidate: Proposal) -> bool:
    return candidate.gain is not None and candidate.gain < 0

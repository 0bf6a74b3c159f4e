"""The last word: the rule table, and the choice among candidates."""

import pytest

from hmas_agents.choice import choose, key_of
from hmas_agents.records import Proposal
from hmas_agents.rule_table import choose as by_rule
from tests.agents.states import long_state


def candidate(source, policy, gain=None, margin=0.02, verdict="ok"):
    """`gain` None: the twin has not tried it."""
    return Proposal(
        source, policy, verdict=verdict, gain=gain, margin=None if gain is None else margin
    )


@pytest.mark.parametrize(
    ("state", "policy", "params"),
    [
        ({"load": None, "policy": "sjf", "params": {"kappa": 7.0}}, "sjf", {"kappa": 7.0}),
        ({"load": 0.5}, "edf", {"kappa": 3.0}),
        ({"load": 1.19}, "edf", {"kappa": 3.0}),
        ({"load": 1.2}, "edf", {"kappa": 10.0}),
        ({"load": 3.0}, "edf", {"kappa": 10.0}),
    ],
)
def test_the_rule_table(state, policy, params):
    proposal = by_rule(long_state(**state))
    assert (proposal.source, proposal.policy, proposal.params) == ("rules", policy, params)
    assert proposal.reason


INCUMBENT = candidate("incumbent", "fcfs")


def test_the_largest_gain_above_its_own_margin_wins():
    better, best = candidate("rules", "edf", 0.1), candidate("model", "slide", 0.2)
    unsure = candidate("twin", "sjf", 0.3, margin=0.4)
    assert choose(INCUMBENT, [better, best, unsure], None, True)[0] is best
    assert choose(INCUMBENT, [unsure], None, True)[0] is INCUMBENT
    reason = choose(INCUMBENT, [unsure], None, True)[1]
    assert reason == "the best lead, +30.0 points of sjf, must exceed +40.0 points: stay"
    dropped = candidate("twin", "sjf", 0.0, margin=1.0)
    reason = choose(INCUMBENT, [dropped], None, True)[1]
    assert reason == "no candidate leads fcfs by enough to be tried further: stay"
    even = candidate("rules", "edf", 0.02)
    assert choose(INCUMBENT, [even], None, True)[0] is INCUMBENT


def test_guardrails_outrank_predictions():
    barred = candidate("model", "slide", 0.9, verdict="dwell: 1 s of 30 s")
    assert choose(INCUMBENT, [barred], None, True)[0] is INCUMBENT


def test_without_a_prediction_nothing_moves():
    chosen, reason = choose(INCUMBENT, [candidate("rules", "slide")], None, True)
    assert chosen is INCUMBENT
    assert reason == "no candidate has a prediction: stay"
    predicted = Proposal("incumbent", "fcfs", predicted=0.98)
    reason = choose(predicted, [candidate("rules", "slide")], None, True)[1]
    assert reason == "no candidate has a prediction; fcfs alone has one: stay"


def test_with_the_twin_disabled_rules_switch_and_the_model_does_not():
    model, rules = candidate("model", "sjf"), candidate("rules", "slide")
    assert choose(INCUMBENT, [model, rules], None, False)[0] is rules
    assert choose(INCUMBENT, [model], None, False)[0] is INCUMBENT


@pytest.mark.parametrize(("gain", "back"), [(None, True), (0.1, True), (-0.2, False)])
def test_a_rollback_goes_through_unless_the_twin_predicts_worse(gain, back):
    incumbent, rollback = candidate("incumbent", "sjf"), candidate("rules", "edf", gain, 0.4)
    chosen, _ = choose(incumbent, [rollback], rollback, True)
    assert (chosen is rollback) is back


def test_defaults_spelt_out_are_the_same_candidate():
    assert key_of("slide", {}) == key_of("slide", {"kappa": 20.0})
    assert key_of("slide", {}) != key_of("slide", {"kappa": 2.0})
    assert key_of("nope", {"x": 1.0}) != key_of("nope", {})

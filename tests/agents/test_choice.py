"""The last word: the rule table, the choice among candidates, the follow-up and rollback."""

import pytest

from hmas_agents.choice import choose, key_of, sampling_margin
from hmas_agents.follow_up import FollowUp, Settled, Watched, rollback_of
from hmas_agents.records import Proposal
from hmas_agents.rule_table import choose as by_rule
from tests.agents.states import long_state


def candidate(source, policy, predicted=None, verdict="ok"):
    return Proposal(source, policy, predicted=predicted, verdict=verdict)


@pytest.mark.parametrize(
    ("state", "policy"),
    [
        ({"load": None, "policy": "laxity"}, "laxity"),
        ({"load": 0.5}, "edf"),
        ({"load": 0.5, "dispersion": {"1s": 1.0, "10s": 9.0}}, "slide"),
        ({"load": 0.5, "attainment": 0.5}, "slide"),
        ({"load": 0.95}, "slide"),
        ({"load": 3.0}, "slide"),
    ],
)
def test_the_rule_table(state, policy):
    proposal = by_rule(long_state(**state))
    assert (proposal.source, proposal.policy) == ("rules", policy)
    assert proposal.reason


def test_the_best_prediction_wins_if_it_beats_the_margin():
    incumbent = candidate("incumbent", "fcfs", 0.5)
    better, best = candidate("rules", "edf", 0.6), candidate("model", "slide", 0.7)
    assert choose(incumbent, [better, best], None, 0.02, True)[0] is best
    assert choose(incumbent, [better, best], None, 0.25, True)[0] is incumbent


def test_guardrails_outrank_predictions():
    incumbent = candidate("incumbent", "fcfs", 0.5)
    barred = candidate("model", "slide", 0.9, verdict="dwell: 1 s of 30 s")
    assert choose(incumbent, [barred], None, 0.02, True)[0] is incumbent


@pytest.mark.parametrize(("incumbent", "proposal"), [(None, 0.9), (0.5, None), (None, None)])
def test_without_a_prediction_nothing_moves(incumbent, proposal):
    present = candidate("incumbent", "fcfs", incumbent)
    chosen, reason = choose(present, [candidate("rules", "slide", proposal)], None, 0.02, True)
    assert chosen is present
    assert "no prediction" in reason


def test_with_the_twin_disabled_rules_switch_and_the_model_does_not():
    incumbent = candidate("incumbent", "fcfs")
    model, rules = candidate("model", "sjf"), candidate("rules", "slide")
    assert choose(incumbent, [model, rules], None, 0.0, False)[0] is rules
    assert choose(incumbent, [model], None, 0.0, False)[0] is incumbent


@pytest.mark.parametrize(("predicted", "back"), [(None, True), (0.6, True), (0.3, False)])
def test_a_rollback_goes_through_unless_the_twin_predicts_worse(predicted, back):
    incumbent, rollback = candidate("incumbent", "sjf", 0.5), candidate("rules", "edf", predicted)
    chosen, _ = choose(incumbent, [rollback], rollback, 0.4, True)
    assert (chosen is rollback) is back


def test_defaults_spelt_out_are_the_same_candidate():
    assert key_of("slide", {}) == key_of("slide", {"kappa": 20.0})
    assert key_of("slide", {}) != key_of("slide", {"kappa": 2.0})
    assert key_of("nope", {"x": 1.0}) != key_of("nope", {})


def test_a_decision_settles_once_when_its_window_is_over():
    follow_up = FollowUp()
    follow_up.watch(Watched(1, 0.0, 60.0, 0.9))
    asked = []

    def realised(since_s, until_s):
        asked.append((since_s, until_s))
        return 0.5, 40

    assert follow_up.settle(59.0, realised) == []
    assert [s.attainment for s in follow_up.settle(60.0, realised)] == [0.5]
    assert follow_up.settle(120.0, realised) == []
    assert asked == [(0.0, 60.0)]


def test_at_the_end_open_windows_are_cut_short():
    follow_up = FollowUp()
    follow_up.watch(Watched(1, 10.0, 70.0, None))
    assert follow_up.settle(30.0, lambda a, b: (b - a, 1), final=True)[0].attainment == 20.0


def test_a_window_without_requests_settles_as_nothing():
    follow_up = FollowUp()
    follow_up.watch(Watched(1, 0.0, 60.0, 0.9))
    assert follow_up.settle(60.0, lambda *_: None) == []


@pytest.mark.parametrize(
    ("realised", "requests", "error", "back"),
    [
        (0.85, 100, None, False),
        (0.75, 100, None, True),
        (0.75, 29, None, False),
        (0.75, 100, 0.2, False),
    ],
)
def test_a_switch_that_disappoints_is_rolled_back(realised, requests, error, back):
    watched = Watched(1, 0.0, 60.0, 0.9, Proposal("incumbent", "edf", {"alpha": 0.002}))
    rollback = rollback_of(Settled(watched, realised, requests), error)
    assert (rollback is not None) is back
    if rollback:
        assert (rollback.policy, rollback.params) == ("edf", {"alpha": 0.002})


def test_only_switches_are_rolled_back():
    assert rollback_of(Settled(Watched(1, 0.0, 60.0, 0.9), 0.0, 100), None) is None


def test_a_gain_of_a_few_requests_is_within_the_sampling_margin():
    two_more_of_73 = 2 / 73
    assert sampling_margin(0.959, 73) > two_more_of_73
    assert sampling_margin(0.6, 1500) < 0.03
    assert sampling_margin(1.0, 73) == sampling_margin(None, 73) == sampling_margin(0.5, 0) == 0.0

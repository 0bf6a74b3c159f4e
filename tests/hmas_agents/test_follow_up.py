"""What came of a decision: settled once, judged by its interval, rolled back to what was good."""

import math

import pytest

from hmas_agents.follow_up import FollowUp, Settled, Watched, reached, rollback_of
from hmas_agents.records import DecisionRecord, Proposal

EDF = Proposal("incumbent", "edf", {"kappa": 2.0})
SLIDE, SJF, FCFS = (Proposal("model", name) for name in ("slide", "sjf", "fcfs"))


def watched(since_s=0.0, in_force=SLIDE, previous=None, low=0.8, high=0.95):
    return Watched(1, since_s, since_s + 60.0, 0.9, previous, in_force, low, high)


def follow(*windows):
    """A follow-up after windows of (what was in force, its attainment), in [0.8, 0.95] expected."""
    follow_up = FollowUp()
    for number, (in_force, attainment, *requests) in enumerate(windows):
        follow_up.watch(watched(60.0 * number, in_force))
        came = (attainment, *(requests or [100]))
        follow_up.settle(60.0 * number + 60.0, lambda *_, came=came: came)
    return follow_up


def back(failed, known_good):
    rollback = rollback_of(failed, known_good)
    assert rollback is not None
    return rollback.policy, rollback.params


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
    follow_up.watch(watched())
    (settled,) = follow_up.settle(60.0, lambda *_: None)
    assert (math.isnan(settled.attainment), settled.requests, settled.reach) == (True, 0, None)
    assert follow_up.known_good == ()


@pytest.mark.parametrize(
    ("realised", "requests", "reach"),
    [
        (0.79, 100, "under"),
        (0.8, 100, "inside"),
        (0.95, 30, "inside"),
        (0.96, 100, "above"),
        (0.1, 29, None),
    ],
)
def test_where_an_outcome_lies(realised, requests, reach):
    assert reached(0.8, 0.95, realised, requests) == reach
    assert reached(None, None, realised, requests) is None


@pytest.mark.parametrize(
    ("realised", "requests", "back"), [(0.8, 100, False), (0.79, 100, True), (0.1, 29, False)]
)
def test_a_switch_that_comes_to_less_than_its_interval_is_rolled_back(realised, requests, back):
    rollback = rollback_of(Settled(watched(previous=EDF), realised, requests))
    assert (rollback is not None) is back
    if rollback:
        assert (rollback.source, rollback.policy, rollback.params) == ("rules", "edf", EDF.params)
        assert rollback.reason == "rollback: realised 0.79, predicted at least 0.80"


def test_only_switches_with_a_prediction_are_rolled_back():
    assert rollback_of(Settled(watched(), 0.0, 100), [EDF]) is None
    unpredicted = watched(previous=EDF, low=None, high=None)
    assert rollback_of(Settled(unpredicted, 0.0, 100), [EDF]) is None


def test_the_way_back_leads_to_the_newest_known_good():
    failed = Settled(watched(in_force=SJF, previous=FCFS), 0.1, 100)
    assert back(failed, follow((EDF, 0.9), (SLIDE, 0.97)).known_good) == ("slide", {})
    assert back(failed, follow((SLIDE, 0.9), (EDF, 0.8)).known_good) == ("edf", EDF.params)


def test_what_failed_is_not_gone_back_to_though_it_was_good_once():
    good = follow((EDF, 0.9), (SJF, 0.9), (FCFS, 0.9, 10)).known_good
    assert [p.policy for p in good] == ["sjf", "edf"]
    failed = Settled(
        watched(in_force=Proposal("twin", "sjf", {"kappa": 20.0}), previous=FCFS), 0.1, 99
    )
    assert back(failed, good)[0] == "edf"  # kappa 20 is sjf's default
    assert back(failed, good[:1])[0] == "fcfs"  # what it replaced


def test_what_has_since_disappointed_is_no_longer_known_good():
    assert follow((EDF, 0.9), (SLIDE, 0.9), (EDF, 0.5)).known_good == (SLIDE,)
    assert follow((EDF, 0.9), (SLIDE, 0.9), (EDF, 0.9)).known_good == (EDF, SLIDE)


def test_what_is_remembered_is_bounded():
    many = [(Proposal("model", "slide", {"kappa": float(k)}), 0.9) for k in range(100)]
    assert len(follow(*many).known_good) < 20


def decided(at_s, *proposals, chosen="edf", applied=True, predicted=0.6):
    """A long decision on these proposals; 0.6 is predicted for what is in force."""
    incumbent = Proposal("incumbent", "fcfs", predicted=predicted)
    return DecisionRecord(
        "long", at_s, "act", "tick", {}, 0, proposals=[*proposals, incumbent],
        chosen={"policy": chosen, "params": {}, "limits": {}, "applied": applied},
    )  # fmt: skip


def proposal(policy, source="model", **known):
    return Proposal(source, policy, **{"verdict": "ok", **known})


@pytest.mark.parametrize(
    ("known", "decision", "outcome"),
    [
        ({}, {"chosen": "sjf"}, "adopted"),
        ({}, {"chosen": "sjf", "applied": False}, "not applied"),
        ({"verdict": "in force already"}, {"chosen": "sjf", "applied": False}, "in force already"),
        ({"verdict": "dwell: 5 s of 20 s"}, {}, "dwell"),
        ({}, {}, "not predicted"),
        ({"gain": 0.01, "margin": 0.02}, {}, "gained too little"),
        ({"gain": 0.03, "margin": 0.02}, {}, "others gained more"),
    ],
)
def test_what_became_of_a_proposal_of_the_model_is_remembered(known, decision, outcome):
    follow_up = FollowUp()
    others = proposal("srpt", source="rules", predicted=0.9)
    follow_up.remember(decided(0.0, proposal("sjf", predicted=0.65, **known), others, **decision))
    (past,) = follow_up.proposed
    assert (past.policy, past.outcome, past.seen_gain) == ("sjf", outcome, None)
    assert past.predicted_gain == pytest.approx(0.05)


def test_a_gain_is_over_what_is_in_force_on_the_same_futures():
    follow_up = FollowUp()
    tried_little = proposal("sjf", predicted=0.65, terms={"against": 0.7})
    follow_up.remember(decided(0.0, tried_little, proposal("srpt")))
    unpredicted, seen = follow_up.proposed[::-1]
    assert (unpredicted.policy, unpredicted.predicted_gain) == ("srpt", None)
    assert seen.predicted_gain == pytest.approx(-0.05)


def test_what_was_adopted_has_the_gain_that_was_seen_once_its_window_is_over():
    follow_up = FollowUp()
    follow_up.remember(decided(0.0, proposal("edf", predicted=0.9), proposal("sjf", predicted=0.7)))
    follow_up.watch(watched(0.0, EDF))
    follow_up.settle(60.0, lambda *_: (0.85, 100))
    edf, sjf = follow_up.proposed
    assert edf.predicted_gain == pytest.approx(0.3)
    assert edf.seen_gain == pytest.approx(0.25)
    assert sjf.seen_gain is None


@pytest.mark.parametrize(("since_s", "requests"), [(0.0, 29), (60.0, 100)])
def test_few_requests_or_another_window_say_nothing_of_a_proposal(since_s, requests):
    follow_up = FollowUp()
    follow_up.remember(decided(0.0, proposal("edf", predicted=0.9)))
    follow_up.watch(watched(since_s, EDF))
    follow_up.settle(120.0, lambda *_: (0.85, requests))
    assert follow_up.proposed[0].seen_gain is None


def test_each_setting_is_remembered_once_the_newest_first_and_few():
    follow_up = FollowUp()
    for at_s, name in enumerate(["edf", "sjf", "srpt", "fcfs", "sjf"]):
        follow_up.remember(decided(float(at_s), proposal(name)))
    assert [(p.policy, p.at_s) for p in follow_up.proposed] == [
        ("sjf", 4.0), ("fcfs", 3.0), ("srpt", 2.0)
    ]  # fmt: skip

"""A policy choice comes early at the start and after a change, else once a period."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.long_timer import ENOUGH_ARRIVALS, FIRST, TICK, LongTimer
from hmas_agents.config import ControlConfig

CONFIG = ControlConfig(first_tick_s=10.0, long_tick_s=60.0, alarm_gap_s=20.0)


@pytest.fixture
def pacing():
    pacing = LongTimer(CONFIG)
    assert pacing.due(0.0, (), 0) == ""
    return pacing


def test_the_first_choice_waits_for_requests_but_not_for_a_period(pacing):
    assert pacing.due(9.0, (), 100) == ""
    assert pacing.due(10.0, (), ENOUGH_ARRIVALS - 1) == ""
    assert pacing.due(12.0, (), ENOUGH_ARRIVALS) == FIRST


def test_without_requests_the_period_counts_from_the_start(pacing):
    assert pacing.due(59.0, (), 0) == ""
    assert pacing.due(60.0, (), 0) == TICK


def test_the_period_counts_from_the_last_choice(pacing):
    pacing.began(30.0)
    assert pacing.due(89.0, (), 500) == ""
    assert pacing.due(90.0, (), 500) == TICK


def test_a_new_alarm_brings_the_choice_forward_once(pacing):
    pacing.began(30.0)
    assert pacing.due(40.0, ("rate_up",), 500) == ""  # too soon, but not forgotten
    assert pacing.due(50.0, (), 500) == "rate_up"
    pacing.began(50.0)
    assert pacing.due(75.0, (), 500) == ""


def test_an_alarm_that_stands_is_answered_once(pacing):
    pacing.began(30.0)
    assert pacing.due(60.0, ("mix", "lengths"), 500) == "lengths,mix"
    pacing.began(60.0)
    assert pacing.due(85.0, ("mix", "lengths"), 500) == ""
    assert pacing.due(86.0, ("mix", "rate_up"), 500) == "rate_up"


def test_a_choice_that_had_to_be_skipped_is_not_queued_and_loses_no_alarm(pacing):
    pacing.began(0.0)
    assert pacing.due(60.0, (), 500) == TICK
    pacing.skipped(60.0)
    assert pacing.due(62.0, ("mix",), 500) == ""
    pacing.skipped(62.0)
    assert pacing.due(82.0, (), 500) == "mix"


@given(
    looks=st.lists(
        st.tuples(st.floats(0.1, 30.0), st.sets(st.sampled_from(["mix", "rate_up", "rate_down"]))),
        max_size=60,
    )
)
def test_choices_keep_their_distance_and_never_stay_away(looks):
    pacing, now_s, last_s = LongTimer(CONFIG), 0.0, 0.0
    pacing.due(0.0, (), 0)
    for step_s, alarms in looks:
        now_s += step_s
        due = pacing.due(now_s, alarms, 1000)
        assert due or now_s - last_s < CONFIG.long_tick_s
        if due:
            assert now_s - last_s >= min(CONFIG.first_tick_s, CONFIG.alarm_gap_s)
            pacing.began(now_s)
            last_s = now_s

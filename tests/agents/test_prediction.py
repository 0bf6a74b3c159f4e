"""How sure is a forecast? Margins grow with error and doubt, shared doubt cancels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.prediction import (
    UNTESTED_ERROR,
    Prediction,
    bias,
    gain,
    gain_margin,
    rms,
)

SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6).map(tuple)


def test_the_error_is_assumed_until_reality_has_shown_it():
    assert rms([]) == UNTESTED_ERROR
    assert rms([0.3, -0.4]) == pytest.approx(0.3536, abs=1e-4)


@given(shares=SHARES, error=st.floats(0.0, 0.5))
def test_an_interval_holds_the_mean_and_widens_with_past_error(shares, error):
    prediction = Prediction(shares)
    low, high = prediction.interval(error)
    assert 0.0 <= low <= prediction.mean + 1e-9
    assert prediction.mean - 1e-9 <= high <= 1.0
    wide_low, wide_high = prediction.interval(error + 0.1)
    assert wide_low <= low
    assert high <= wide_high


def test_a_gain_is_taken_over_the_futures_that_both_have_seen():
    assert gain(Prediction((0.6,)), Prediction((0.5, 0.1, 0.1))) == pytest.approx(0.1)


def test_the_future_that_chose_the_finalist_does_not_speak_for_it():
    lucky, incumbent = Prediction((0.9, 0.5, 0.5)), Prediction((0.5, 0.5, 0.5))
    assert gain(lucky, incumbent) == 0.0
    assert gain(lucky, incumbent) < gain_margin(lucky, incumbent, 0.0, 0.01)


@given(shares=st.lists(st.floats(0.3, 0.7), min_size=3, max_size=8), lead=st.floats(0.0, 0.1))
def test_doubt_over_the_futures_comes_on_top(shares, lead):
    incumbent = Prediction((0.5,) * len(shares))
    doubtful = gain_margin(Prediction(tuple(shares)), incumbent, lead, 0.01)
    sure = gain_margin(Prediction((0.6,) * len(shares)), incumbent, lead, 0.01)
    assert sure == pytest.approx(max(lead, 0.01))
    assert doubtful >= sure - 1e-12


@given(ours=SHARES, theirs=SHARES, off=st.floats(0.0, 0.3), least=st.floats(0.0, 0.1))
def test_a_margin_is_never_below_the_least_or_the_bias(ours, theirs, off, least):
    margin = gain_margin(Prediction(ours), Prediction(theirs), off, least)
    assert margin >= max(least, off)


@pytest.mark.parametrize(("futures", "margin"), [(1, 0.10), (2, 0.10), (3, 0.05)])
def test_one_fresh_future_needs_twice_as_much(futures, margin):
    candidate, incumbent = Prediction((0.6,) * futures), Prediction((0.5,) * futures)
    assert gain_margin(candidate, incumbent, 0.05, 0.01) == pytest.approx(margin)


def test_who_was_not_tried_again_may_not_replace_who_was():
    assert gain_margin(Prediction((1.0,)), Prediction((0.0, 0.0)), 0.0, 0.01) == 1.0


def test_error_that_averages_out_is_no_bias():
    assert bias([]) == UNTESTED_ERROR
    assert bias([0.2, -0.2] * 10) < 0.01
    assert bias([0.1] * 19) == pytest.approx((0.05 + 1.9) / 20)
    assert bias([-0.1] * 19) == bias([0.1] * 19)

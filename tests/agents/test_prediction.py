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


@given(ours=SHARES, theirs=SHARES, off=st.floats(0.0, 0.3), least=st.floats(0.0, 0.1))
def test_a_margin_is_never_below_the_least_or_the_bias(ours, theirs, off, least):
    margin = gain_margin(Prediction(ours), Prediction(theirs), off, least)
    assert margin >= max(least, off)


def test_one_future_needs_twice_as_much():
    one, many = Prediction((0.6,)), Prediction((0.6, 0.6))
    assert gain_margin(one, Prediction((0.5,)), 0.05, 0.01) == pytest.approx(0.10)
    assert gain_margin(many, Prediction((0.5, 0.5)), 0.05, 0.01) == pytest.approx(0.05)


def test_error_that_averages_out_is_no_bias():
    assert bias([]) == UNTESTED_ERROR
    assert bias([0.2, -0.2] * 10) < 0.01
    assert bias([0.1] * 19) == pytest.approx((0.05 + 1.9) / 20)
    assert bias([-0.1] * 19) == bias([0.1] * 19)

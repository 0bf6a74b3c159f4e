"""How sure is a forecast? Intervals hold what they state, and luck replaces nobody."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.twin.prediction import (
    COVERAGE,
    NOT_PURSUED,
    SCORES_KEPT,
    Calibration,
    Past,
    gain,
    margin,
    terms,
)
from hmas_agents.twin.prediction import Prediction as PredictionOf
from tests.agents.scripted import forecasts

SHARES = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).map(tuple)
SCORES = st.lists(st.floats(-20.0, 20.0), max_size=150)


def Prediction(shares, offered=math.inf):  # noqa: N802  of futures in which all is decided
    return PredictionOf(forecasts(shares), offered)


def calibration(scores):
    return Calibration.of(Past(0.5, 0.01, 0.5 + 0.01 * score) for score in scores)


@given(shares=SHARES, scores=SCORES)
def test_an_interval_lies_within_what_can_be(shares, scores):
    low, high = calibration(scores).interval(Prediction(shares, 100.0))
    assert 0.0 <= low <= high <= 1.0


@pytest.mark.parametrize(("shift", "wide"), [(0.0, 0.5), (0.0, 1.0), (0.0, 4.0), (-2.0, 1.5)])
def test_a_stated_interval_holds_as_often_as_it_says(shift, wide):
    """Whatever reality's distance from the futures: narrower, wider, or to one side."""
    rng, held, count = np.random.default_rng(1), 0, 3000
    known = Calibration()
    for i in range(count):
        prediction = Prediction(tuple(rng.normal(0.6, 0.02, 32)), 400.0)
        realised = 0.6 + 0.02 * rng.normal(shift, wide)
        low, high = known.interval(prediction)
        held += i >= SCORES_KEPT and low <= realised <= high
        known.past.append(Past(prediction.mean, prediction.spread, realised))
    assert COVERAGE - 0.03 < held / (count - SCORES_KEPT) < COVERAGE + 0.04


def test_before_the_first_outcome_an_interval_is_wider_than_its_futures():
    low, high = Calibration().interval(Prediction((0.5, 0.6) * 16, 400.0))
    assert low < 0.5 < 0.6 < high


def test_futures_that_agree_leave_the_doubt_of_one_request():
    low, high = Calibration().interval(Prediction((0.75,) * 32, 200.0))
    assert low < 0.75 - 1 / 200
    assert high > 0.75 + 1 / 200


def test_the_first_half_chose_the_finalist_and_does_not_speak_for_it():
    lucky = Prediction((0.9,) * 16 + (0.5,) * 16)
    assert gain(lucky, Prediction((0.5,) * 32)) == 0.0


def test_one_that_was_not_tried_on_all_futures_may_not_replace_what_is_in_force():
    assert margin(Prediction((1.0,) * 16), Prediction((0.0,) * 32)) == NOT_PURSUED


def test_who_never_loses_need_not_gain_alike_everywhere():
    """Quiet futures leave little to gain, and busy ones much: that is no doubt."""
    calm = Prediction((0.5,) * 32, 100.0)
    uneven = Prediction((0.5, 0.9) * 16, 100.0)
    assert margin(uneven, calm) == 0.01 < gain(uneven, calm)
    risky = Prediction((0.1, 1.0) * 16, 100.0)
    assert margin(risky, calm) > gain(risky, calm) > 0.0


def test_equal_candidates_rarely_replace_each_other():
    """Of sixty that differ by chance alone the luckiest of the first half is tried on the other."""
    rng, switched = np.random.default_rng(2), 0
    for _ in range(400):
        common = rng.normal(0.7, 0.03, 32)
        each = np.clip(common + rng.normal(0.0, 0.01, (60, 32)), 0, 1)
        luckiest = Prediction(tuple(each[each[:, :16].mean(axis=1).argmax()]), 400.0)
        incumbent = Prediction(tuple(np.clip(common, 0, 1)), 400.0)
        switched += gain(luckiest, incumbent) > margin(luckiest, incumbent)
    assert switched / 400 < 0.04


def test_a_gain_beyond_chance_does_replace():
    rng = np.random.default_rng(3)
    common = rng.normal(0.7, 0.03, 32)
    better = Prediction(tuple(common + rng.normal(0.02, 0.01, 32)), 400.0)
    incumbent = Prediction(tuple(common), 400.0)
    assert gain(better, incumbent) > margin(better, incumbent)


def test_the_error_is_unknown_until_reality_has_shown_it():
    assert Calibration().error is None
    past = [Past(0.8, 0.1, 0.5), Past(0.1, 0.1, 0.5)]
    assert Calibration.of(past).error == pytest.approx(0.3536, abs=1e-4)


def test_terms_say_what_a_margin_was_made_of():
    candidate, incumbent = Prediction((0.6, 0.45) * 16), Prediction((0.5,) * 32)
    said = terms(candidate, incumbent)
    assert said["futures"] == 16
    assert said["against"] == 0.5
    assert said["caution"] * said["risk"] == pytest.approx(margin(candidate, incumbent))

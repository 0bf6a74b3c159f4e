"""Do intervals hold what they say, and are arms compared in pairs?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.result.statistics import (
    holm,
    mean_interval,
    paired_difference,
    paired_p,
    paired_ratio,
)

values = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


@given(values)
def test_an_interval_holds_its_mean_and_scatter_makes_it_wide(seen):
    found = mean_interval(seen)
    assert found.n == len(seen)
    assert found.low <= found.mean <= found.high
    assert (found.mean - found.low) == pytest.approx(found.high - found.mean)
    wider = mean_interval([found.mean + 2 * (value - found.mean) for value in seen])
    assert wider.high - wider.low == pytest.approx(2 * (found.high - found.low), abs=1e-9)


def test_the_interval_is_students():
    found = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.high) == pytest.approx((3 - 1.9632, 3 + 1.9632), abs=1e-4)


def test_one_seed_has_no_interval_and_says_so():
    found = mean_interval([1.5])
    assert (found.mean, found.low, found.high) == (1.5, 1.5, 1.5)
    assert found.text() == "1.50 (n=1)"
    assert mean_interval([1.0, 2.0]).text("{:.0f}").endswith("n=2)")


def test_pairs_see_a_small_gain_under_large_differences_between_seeds():
    base = [1.0, 5.0, 2.0, 9.0, 4.0]
    better = [value * 1.1 for value in base]
    gain = paired_difference(base, better)
    assert gain.excludes(0.0)
    ratio = paired_ratio(base, better)
    assert ratio is not None
    assert (ratio.low, ratio.high) == pytest.approx((1.1, 1.1))
    assert not mean_interval(better).excludes(float(np.mean(base)))
    p = paired_p(base, better)
    assert p is not None
    assert p < 0.05


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_p_and_interval_of_a_difference_agree(differences):
    p = paired_p([0.0] * len(differences), differences)
    found = paired_difference([0.0] * len(differences), differences)
    assert p is not None
    if not 0.0499 < p < 0.0501:
        assert (p < 0.05) == found.excludes(0.0)


def test_one_seed_has_no_p_and_no_scatter_no_doubt():
    assert paired_p([1.0], [2.0]) is None
    assert paired_p([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert paired_p([1.0, 2.0], [2.0, 3.0]) == 0.0


def test_many_comparisons_are_adjusted_as_holm_says():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_ratio_needs_a_base_and_pairs_need_partners():
    assert paired_ratio([0.0, 0.0], [1.0, 1.0]) is None
    open_ended = paired_ratio([0.0, 1.0], [1.0, 1.0])
    assert open_ended is not None
    assert (open_ended.mean, open_ended.low, open_ended.high) == (2.0, 0.0, math.inf)
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])

"""Do intervals hold what they say, and are arms compared in pairs?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.result.statistics import mean_interval, paired_difference, paired_ratio

values = st.lists(st.floats(0.01, 100), min_size=2, max_size=8)


@given(values)
def test_an_interval_holds_its_mean_and_lies_within_the_values(seen):
    found = mean_interval(seen)
    assert found.n == len(seen)
    assert min(seen) - 1e-9 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= max(seen) + 1e-9
    assert found == mean_interval(seen)


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


def test_a_ratio_needs_a_base_and_pairs_need_partners():
    assert paired_ratio([0.0, 1.0], [1.0, 1.0]) is None
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_five_seeds_hold_the_mean_about_as_often_as_the_docstring_says():
    draws = np.random.default_rng(1).normal(size=(300, 5))
    held = [not mean_interval(list(row)).excludes(0.0) for row in draws]
    assert np.mean(held) == pytest.approx(0.84, abs=0.05)

"""Do intervals hold the truth as often as they say, and do arms differ only where they do?"""

import re

import pytest

from evals.checks.coverage import FAMILIES, coverage, coverage_of_runs
from tests.command_line import run_hmas


@pytest.fixture(scope="module")
def shares():
    table = coverage(2000)
    return {(row.data, row.n): row for row in table.itertuples(index=False)}


# A gain in proportion to a skewed base is a skewed difference: its ratio is the figure to look at.
SKEWED = ("lognormal, sigma 1", "gamma, shape 2, 20% noise")


@pytest.mark.parametrize("family", FAMILIES)
def test_with_20_seeds_comparisons_of_arms_hold_the_truth(shares, family):
    assert 0.93 <= shares[family, 20].ratio <= 0.975
    least = 0.91 if family in SKEWED else 0.93
    assert least <= shares[family, 20].difference <= 0.97


@pytest.mark.parametrize("family", FAMILIES)
def test_with_five_seeds_they_hold_it_little_less_often(shares, family):
    assert 0.93 <= shares[family, 5].ratio <= 0.99
    least = 0.88 if family in SKEWED else 0.93
    assert least <= shares[family, 5].difference <= 0.975


def test_a_mean_is_held_unless_a_few_seeds_have_it_all(shares):
    for family in FAMILIES:
        least = 0.85 if family == "lognormal, sigma 1" else 0.92
        assert least <= shares[family, 20].mean <= 0.97, family


def test_two_runs_of_one_arm_differ_as_the_intervals_say():
    # 60 comparisons of which 95% should hold 0: 52 to 60 in 99.8% of cases
    assert 52 / 60 <= coverage_of_runs(60, 8) <= 1


def test_the_command_prints_the_table():
    result = run_hmas("eval", "coverage", "--draws", "100", "--comparisons", "10")
    assert result.exit_code == 0, result.output
    assert re.search(r"normal +20 +\d", result.output)
    assert "hold 0" in result.output

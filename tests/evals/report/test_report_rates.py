"""Is the highest rate at which promises are kept what the loads say, and no more than that?"""

import pytest

from evals.report.kept_rates import KeptRate, kept_rate, kept_rate_sheets
from evals.report.load_curves import LoadCurves
from tests.evals.load_samples import curves, result_of, rows


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(5.0, 1.0), (10.0, 0.8)], KeptRate(7.5)),
        ([(5.0, 1.0), (10.0, 0.9), (20.0, 0.4)], KeptRate(10.0)),
        ([(5.0, 0.95), (10.0, 0.92)], KeptRate(10.0, ">")),
        ([(5.0, 0.89), (10.0, 0.99)], KeptRate(5.0, "<")),
    ],
)
def test_a_rate_is_interpolated_between_loads_and_never_beyond_them(points, expected):
    found = kept_rate(points, 0.9)
    assert found.rps == pytest.approx(expected.rps)
    assert found.side == expected.side


def test_a_rate_counts_only_if_every_lower_one_was_kept_too():
    dip = [(5.0, 1.0), (10.0, 0.8), (20.0, 0.95), (40.0, 0.2)]
    assert kept_rate(dip, 0.9).rps == pytest.approx(7.5)


def test_kept_rates_are_means_over_seeds_with_multiple_of_capacity_and_ratio_to_stock():
    found = curves(
        {"vllm-fcfs": (1.0, 0.8, 0.1), "hmas": (1.0, 1.0, 0.8)}, capacity_rps=10.0
    )
    (sheet,) = kept_rate_sheets(found)
    by_case = {(row[0], row[1]): row[2:] for row in sheet.rows}
    # stock: halfway from 0.5 to 1 times, hmas: halfway from 1 to 2 times; seeds offer 10 and 11
    assert by_case["90%", "vllm-fcfs"] == ["7.88 (7.50-8.25)", "0.79x", "1.00x (1.00-1.00)"]
    assert by_case["90%", "hmas"] == ["15.75 (15.00-16.50)", "1.57x", "2.00x (2.00-2.00)"]
    assert [row[1] for row in sheet.rows] == ["hmas", "vllm-fcfs"] * 2


def test_what_lies_beyond_the_loads_is_one_sided():
    (sheet,) = kept_rate_sheets(
        curves({"vllm-fcfs": (1.0, 0.8, 0.1), "good": (1.0, 1.0, 1.0), "bad": (0.5, 0.4, 0.3)})
    )
    at_90 = {row[1]: row[2:] for row in sheet.rows if row[0] == "90%"}
    assert at_90["good"] == [">21.00", "-", ">2.67x"]
    assert at_90["bad"] == ["<5.25", "-", "<0.67x"]


def test_two_one_sided_rates_have_a_ratio_only_where_it_is_known_on_one_side():
    (sheet,) = kept_rate_sheets(
        curves({"vllm-fcfs": (1.0, 1.0, 1.0), "good": (1.0, 1.0, 1.0), "bad": (0.5, 0.4, 0.3)})
    )
    at_90 = {row[1]: row[4] for row in sheet.rows if row[0] == "90%"}
    assert at_90 == {"vllm-fcfs": "-", "good": "-", "bad": "<0.25x"}


def test_seeds_above_and_below_leave_no_figure():
    mixed = [
        result_of("conv", load, "hmas", met, seed=seed, offered_rps=10 * load)
        for seed, met in ((1, 1.0), (2, 0.2))
        for load in (0.5, 1.0)
    ]
    (sheet,) = kept_rate_sheets(LoadCurves("conv", mixed))
    assert rows(sheet)[0][2] == "-"


def test_one_load_has_no_highest_rate():
    assert kept_rate_sheets(curves({"hmas": (1.0,)}, loads=(1.0,))) == []

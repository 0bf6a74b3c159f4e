"""Do the stability figures say what a reader of the plot would?"""

import pytest

from evals.result.metrics import CaseRun, recovery_s, stability, summarise
from tests.evals.samples import outcome


def windows(*shares, first_s=15.0):
    return [(first_s + 30 * i, share) for i, share in enumerate(shares)]


def test_figures_of_a_dip():
    found = stability(windows(1.0, 1.0, 0.4, 0.8, 1.0), 0.0, 150.0, [60.0], switches=3)
    assert found["worst"] == 0.4
    assert found["below_target_min"] == 1.0
    assert found["deviation"] == pytest.approx(0.2332, abs=1e-3)
    assert found["recovery"] == [{"at_s": 60.0, "recovery_s": 60.0}]
    assert found["switches_per_hour"] == 72


def test_only_whole_windows_after_the_warm_up_count():
    found = stability(windows(0.0, 1.0, 1.0, 0.0), 30.0, 100.0, [10.0, 100.0], switches=0)
    assert [share for _, share in found["windows"]] == [1.0, 1.0]
    assert (found["worst"], found["recovery"]) == (1.0, [])


def test_a_run_shorter_than_a_window_has_one_window():
    assert stability(windows(0.5), 0.0, 12.0, [], switches=0)["worst"] == 0.5


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((1.0, 1.0, 1.0, 1.0), 0.0),  # never fell
        ((1.0, 1.0, 0.5, 1.0), 30.0),
        ((1.0, 1.0, 1.0, 0.5, 1.0), 60.0),  # fell late: back only after that
        ((1.0, 1.0, 0.5, 0.5), None),  # not back
        ((0.6, 0.6, 0.58, 0.3, 0.56), 60.0),  # back to where it was, which is below the target
        ((1.0, 1.0), None),  # nothing arrived afterwards
    ],
)
def test_recovery_is_back_for_good(shares, expected):
    assert recovery_s(windows(*shares), 0.0, 60.0, 1000.0) == expected


def test_recovery_looks_no_further_than_the_next_change():
    assert recovery_s(windows(1.0, 0.5, 1.0, 0.0), 0.0, 30.0, 90.0) == 30.0


def test_results_leave_out_the_warm_up_by_arrival():
    outcomes = [outcome(i, arrival_s=100.0 + i, met=i >= 30) for i in range(91)]
    case = CaseRun("s", 1.0, "hmas", outcomes, ())
    result = summarise(case, 90.0, warmup_s=30.0, moments_s=[60.0])
    assert (result["requests"], result["uncounted_requests"]) == (61, 30)
    assert result["attainment"] == 1.0
    assert result["offered_rps"] == pytest.approx(61 / 60)
    assert result["stability"]["windows"] == [[45.0, 1.0], [75.0, 1.0]]
    assert result["stability"]["recovery"] == [{"at_s": 60.0, "recovery_s": 0.0}]
    with pytest.raises(ValueError, match="warmup_s = 90 do not count"):
        summarise(case, 90.0, warmup_s=90.0)

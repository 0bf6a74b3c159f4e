"""Does the report say who was steady while traffic changed, and only there?"""

from evals.report.steadiness import steadiness_sheets
from tests.evals.load_samples import curves, rows

MET = {"vllm-fcfs": [1.0, 0.5, 0.25], "hmas": [1.0, 0.9, 0.8]}


def changing(loads=(1.0,), **of_arm):
    """Curves in whose results traffic changes twice, with the figures of each arm."""
    made = curves({arm: MET[arm] for arm in of_arm}, loads=loads)
    for load in loads:
        for arm, (worst, recoveries) in of_arm.items():
            for result in made.by_seed(load, arm).values():
                result["stability"] |= {
                    "worst": worst, "deviation": 0.125, "below_target_min": 1.5,
                    "switches_per_hour": 6.0,
                    "recovery": [{"at_s": 60.0, "recovery_s": each} for each in recoveries],
                }  # fmt: skip
    return made


def test_traffic_that_stays_as_it_is_has_no_sheet():
    assert steadiness_sheets(curves(MET)) == []


def test_the_steadiest_comes_first_and_recoveries_of_all_seeds_count():
    (sheet,) = steadiness_sheets(
        changing(**{"vllm-fcfs": (0.1, (None, 30.0)), "hmas": (0.7, (0.0, 45.0))})
    )
    assert rows(sheet) == [
        ["hmas", "70.0%", "0.125", "1.5", "4 of 4", "22", "6.0"],
        ["vllm-fcfs", "10.0%", "0.125", "1.5", "2 of 4", "30", "6.0"],
    ]


def test_an_arm_that_never_recovers_has_no_time():
    (sheet,) = steadiness_sheets(changing(hmas=(0.7, (None,))))
    assert rows(sheet)[0][4:6] == ["0 of 2", "-"]


def test_each_load_has_its_sheet():
    made = changing(loads=(0.5, 1.0), hmas=(0.7, (0.0,)))
    assert [sheet.title for sheet in steadiness_sheets(made)] == [
        "Steadiness at 0.5x, conv", "Steadiness at 1x, conv"
    ]  # fmt: skip

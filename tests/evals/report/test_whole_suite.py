"""Does the table over a whole suite weigh cases and seeds alike, and leave out what it must?"""

from itertools import product

from evals.report.whole_suite import suite_sheets

CASES = (("calm", 0.8), ("busy", 1.5))


def results(attainments):
    """Attainment by arm and case, plus a hundredth per seed."""
    return [
        {"scenario": case[0], "load": case[1], "seed": seed, "arm": arm, "switches": 2,
         "attainment": by_case[i] + seed / 100}
        for (arm, by_case), seed, (i, case) in product(
            attainments.items(), (1, 2), enumerate(CASES)
        )
    ]  # fmt: skip


def test_every_case_counts_the_same_and_the_best_comes_first():
    (sheet,) = suite_sheets(results({"hmas": (0.8, 0.6), "fixed-edf": (0.9, 0.3)}))
    ours, theirs = sheet.rows
    assert [ours[0], theirs[0]] == ["hmas", "fixed-edf"]
    assert (ours[1], theirs[1]) == ("71.5%", "61.5%")
    assert theirs[2] == "+10.0 (+10.0 to +10.0)"
    assert theirs[3] == f"{0.815 / 0.915:.3f}", "in the calm case the fixed policy is better"
    assert ours[2:] == ["-", "-", "2.0"]


def test_an_arm_that_lacks_a_case_is_left_out():
    rows = results({"hmas": (0.8, 0.6), "fixed-edf": (0.9, 0.3)})
    (sheet,) = suite_sheets(rows[:-1])
    assert [row[0] for row in sheet.rows] == ["hmas"]


def test_without_the_controller_or_a_second_case_there_is_no_table():
    assert suite_sheets(results({"fixed-edf": (0.9, 0.3)})) == []
    assert suite_sheets([r for r in results({"hmas": (0.9, 0.3)}) if r["load"] == 0.8]) == []

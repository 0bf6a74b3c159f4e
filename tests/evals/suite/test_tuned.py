"""Is what was tuned read back as written, and refused where it does not belong?"""

import pytest

from evals.suite.toml_file import SuiteError
from evals.suite.tuned import TunedFile, tuned_for, write_tuned
from tests.evals.small_cases import TUNED


def found(**changes):
    fields = {"suite": "drift", "half": "development", "seeds": (0, 1), "commit": "abc",
              "date": "2026-01-01", "machines": {"h200": TUNED}}  # fmt: skip
    return TunedFile.model_validate(fields | changes)


def test_a_file_is_read_as_written_and_machines_tuned_earlier_stay(tmp_path):
    path = write_tuned(found(), tmp_path)
    assert tuned_for("drift", "h200", tmp_path) == TUNED
    faster = TUNED.model_copy(update={"best_fixed": "fixed-sjf"})
    assert write_tuned(found(machines={"b200": faster}), tmp_path) == path
    assert tuned_for("drift", "h200", tmp_path) == TUNED
    assert tuned_for("drift", "b200", tmp_path) == faster
    assert 'half" = "development"' in path.read_text()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"half": "test"}, "half: tuned on the half 'test', not on 'development'"),
        ({"suite": "steady"}, "suite: tuned on 'steady', not on 'drift'"),
        ({"machines": {"a100": TUNED}}, "machines: nothing for 'h200', only a100"),
    ],
)
def test_a_file_of_another_half_suite_or_machine_is_refused_with_the_command(
    changes, says, tmp_path
):
    written = write_tuned(found(**changes), tmp_path)
    written.rename(tmp_path / "drift.toml")
    with pytest.raises(SuiteError, match=says) as error:
        tuned_for("drift", "h200", tmp_path)
    assert "run `hmas eval tune evals/suites/drift.toml`" in str(error.value)


def test_without_a_file_the_command_is_named(tmp_path):
    with pytest.raises(SuiteError, match=r"run `hmas eval tune evals/suites/drift\.toml`"):
        tuned_for("drift", "h200", tmp_path)


def test_a_tree_of_arms_that_are_not_fixed_is_refused(tmp_path):
    path = write_tuned(found(), tmp_path)
    path.write_text(path.read_text().replace("fixed-density", "hmas"))
    with pytest.raises(SuiteError, match="'hmas' is no fixed arm"):
        tuned_for("drift", "h200", tmp_path)

"""Are a run's tables and plots made again as the run made them?"""

import json

import pytest

from evals.report.files import write_tables
from tests.command_line import run_hmas
from tests.evals.load_samples import runs

RESULTS = runs({"vllm-fcfs": [1.0, 0.5, 0.25], "hmas": [1.0, 0.9, 0.8]}, bound_rps=20.0)
NAMES = ("results.md", "summary.csv", "goodput.svg", "ratio.svg")


def report(*args):
    return run_hmas("eval", "report", *args)


def test_the_files_are_those_of_the_run(tmp_path):
    ran, again = tmp_path / "ran", tmp_path / "again"
    ran.mkdir()
    write_tables(RESULTS, ran)
    (ran / "results.json").write_text(json.dumps({"results": RESULTS}))
    assert report(ran, "--out", again).exit_code == 0
    for name in NAMES:
        assert (again / name).read_text() == (ran / name).read_text() != ""
    (ran / "results.md").unlink()
    assert report(ran / "results.json").exit_code == 0
    assert (ran / "results.md").read_text() == (again / "results.md").read_text()


@pytest.mark.parametrize("text", ["", "{}", '{"results": [{"arm": "hmas"}]}', "[1, 2]"])
def test_what_no_run_wrote_is_one_line_and_exit_code_2(tmp_path, text):
    (tmp_path / "results.json").write_text(text)
    said = report(tmp_path)
    assert said.exit_code == 2
    assert f"hmas eval report: {tmp_path}/results.json: " in said.stderr


def test_a_missing_file_is_named(tmp_path):
    said = report(tmp_path / "none.json")
    assert said.exit_code == 2
    assert "none.json: cannot be read: No such file" in said.output.replace("\n", "")

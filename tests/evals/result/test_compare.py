"""Is a regression found, and nothing else taken for one?"""

import json

import pytest

from tests.command_line import run_hmas

BEFORE = (0.80, 0.84, 0.78, 0.82, 0.81)


def write(folder, attainments, **more):
    folder.mkdir(exist_ok=True)
    results = [
        {
            "scenario": "s", "load": 1.2, "arm": arm, "seed": seed, "attainment": value,
            "goodput_rps": 10 * value, "trace": "t", **more,
        }
        for arm in ("vllm-fcfs", "hmas")
        for seed, value in enumerate(attainments if arm == "hmas" else BEFORE, start=1)
    ]  # fmt: skip
    (folder / "results.json").write_text(json.dumps({"seed": 1, "results": results}))
    return folder


def run(*arguments):
    return run_hmas("eval", "compare", *arguments)


@pytest.fixture
def before(tmp_path):
    return write(tmp_path / "a", BEFORE)


@pytest.mark.parametrize(
    ("after", "code"),
    [
        (BEFORE, 0),
        ([x - 0.05 for x in BEFORE], 1),
        ([x + 0.05 for x in BEFORE], 0),
        ([x - 0.005 for x in BEFORE], 0),  # within the tolerance
        ([x + d for x, d in zip(BEFORE, (-0.2, 0.1, -0.1, 0.1, -0.05), strict=True)], 0),  # noise
    ],
)
def test_a_loss_beyond_tolerance_and_noise_is_exit_code_1(before, tmp_path, after, code):
    result = run(before, write(tmp_path / "b", after), "--json")
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    assert document["regressions"] == code
    by_arm = {case["arm"]: case for case in document["cases"]}
    assert by_arm["vllm-fcfs"]["attainment"]["mean"] == 0
    assert by_arm["hmas"]["seeds"] == [1, 2, 3, 4, 5]
    assert by_arm["hmas"]["regression"] == bool(code)


def test_tolerance_and_arm_narrow_it(before, tmp_path):
    after = write(tmp_path / "b", [x - 0.05 for x in BEFORE])
    assert run(before, after / "results.json", "--tolerance", 0.06).exit_code == 0
    stock = run(before, after, "--arm", "vllm-fcfs")
    assert stock.exit_code == 0
    assert "0 of 1 cases" in stock.output


def test_one_seed_of_an_older_file_is_compared_without_an_interval(tmp_path):
    row = {"scenario": "s", "load": 1.0, "arm": "hmas", "attainment": 0.9, "goodput_rps": 1.0}
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, met in zip(files, (0.9, 0.8), strict=True):
        file.write_text(json.dumps({"seed": 1, "results": [row | {"attainment": met}]}))
    result = run(*files)
    assert result.exit_code == 1
    assert "-10.0" in result.output


def test_what_makes_figures_incomparable_is_said(before, tmp_path):
    result = run(before, write(tmp_path / "b", BEFORE[:4], trace="other"))
    assert result.exit_code == 0
    assert "trace differs in 9 cases" in result.stderr
    assert "only in A: 1 cases" in result.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Invalid JSON"),
        ('{"seed": 1}', "results: Field required"),
        ('{"seed": 1, "results": [{"scenario": "s"}]}', "results.0.load: Field required"),
        ('{"seed": 1, "results": []}', "no case in common"),
    ],
)
def test_bad_input_is_exit_code_2_and_names_the_file(before, tmp_path, text, says):
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    result = run(before, bad)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "bad.json" in result.stderr
    assert run(before, tmp_path / "none.json").exit_code == 2


def test_results_of_different_halves_are_refused(before, tmp_path):
    other = write(tmp_path / "b", BEFORE)
    for folder, half in ((before, "development"), (other, "test")):
        document = json.loads((folder / "results.json").read_text())
        document["config"] = {"half": half}
        (folder / "results.json").write_text(json.dumps(document))
    assert run(before, before).exit_code == 0
    refused = run(before, other)
    assert refused.exit_code == 2
    assert "'development'" in refused.stderr
    assert "'test'" in refused.stderr

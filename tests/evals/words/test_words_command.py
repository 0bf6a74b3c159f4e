"""Does `hmas eval words` keep its promises from the command line?"""

import json

import pytest

from tests.agents.model_server import completion, serving
from tests.command_line import run_hmas
from tests.source_tree import ROOT

DEVELOPMENT = ROOT / "evals/cases/words_dev.jsonl"
ROW = {
    "text": "acme first", "now": "12:00",
    "contract": {"tenants": ["acme"], "slo_classes": ["batch"]},
    "expected": [{"kind": "weight", "tenant": "acme", "factor": 3}],
}  # fmt: skip


def words(*args):
    return run_hmas("eval", "words", *args)


def by_grammar(*args):
    return words("--contender", "grammar", *args)


def test_json_is_one_object_with_a_row_for_each_contender():
    result = by_grammar("--cases", DEVELOPMENT, "--json")
    assert result.exit_code == 0, result.output
    [row] = json.loads(result.stdout)["contenders"]
    assert list(row) == [
        "name", "cases", "exact", "valid", "asked", "wrong_confident", "by_field", "latency_s"
    ]  # fmt: skip
    assert (row["name"], row["cases"]) == ("grammar", len(DEVELOPMENT.read_text().splitlines()))
    assert set(row["latency_s"]) == {"p50", "p99"}
    assert set(row["by_field"]) == {
        "kind", "tenant", "slo_class", "factor", "share", "from", "until", "for_min", "question"
    }  # fmt: skip


def test_the_grammar_reads_the_cases_that_it_was_written_with():
    [row] = json.loads(by_grammar("--cases", DEVELOPMENT, "--json").stdout)["contenders"]
    assert row["exact"] >= 0.94
    assert row["valid"] == 1
    assert row["wrong_confident"] <= 0.04


def test_a_model_at_an_endpoint_is_a_contender_beside_it(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(ROW))
    with serving(completion('{"changes": [], "question": "Who?"}')) as model:
        document = json.loads(words("--cases", path, "--model-url", model.url, "--json").stdout)
    rows = {row["name"]: (row["exact"], row["asked"]) for row in document["contenders"]}
    assert rows == {"grammar": (1, 0), "few-shot": (0, 1)}
    assert "Examples, with" in model.asked[0]["messages"][0]["content"]


def test_asked_zero_shot_a_model_sees_no_example(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(ROW))
    with serving(completion('{"changes": [], "question": "Who?"}')) as model:
        result = words("--cases", path, "--model-url", model.url, "--contender", "zero-shot")
    assert "zero-shot" in result.stdout
    assert "Examples" not in model.asked[0]["messages"][0]["content"]


def test_an_unknown_contender_is_named_with_those_that_there_are():
    result = words("--contender", "gramar")
    assert result.exit_code == 2
    assert "did you mean 'grammar'?" in " ".join(result.output.split())


def test_the_table_has_the_contender_and_misses_are_told_on_request(tmp_path):
    path = tmp_path / "cases.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW | {"expected": {"question": True}}))
    table = by_grammar("--cases", path).stdout
    assert "grammar" in table
    assert "50.0%" in table
    assert "means question" not in table
    assert "12:00 acme first\n  means question\n" in by_grammar("--cases", path, "--misses").stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "holds no case"), ("{", "cases.jsonl:1: "), (None, "cannot be read")],
)
def test_cases_that_cannot_be_used_end_it_with_what_is_wrong(tmp_path, text, told):
    path = tmp_path / "cases.jsonl"
    if text is not None:
        path.write_text(text)
    result = by_grammar("--cases", path)
    assert result.exit_code == 2
    assert told in result.output


def test_the_taught_model_is_a_contender_with_its_own_confidence(tmp_path):
    path, adapter = tmp_path / "cases.jsonl", tmp_path / "adapter"
    path.write_text(json.dumps(ROW))
    adapter.mkdir()
    curve = {"intercept": 3.0, "slope": 1.0, "agreed": 0.0, "ask_below": 0.5}
    (adapter / "results.json").write_text(json.dumps({"calibration": curve}))
    reply = {
        "choices": [{"text": "weight T1 high", "logprobs": {"token_logprobs": [-0.1]}}],
    }
    with serving(reply) as model:
        asked = ("--contender", "taught", "--model-url", model.url, "--adapter", adapter, "--json")
        document = json.loads(by_grammar("--cases", path, *asked).stdout)
    rows = {row["name"]: row["exact"] for row in document["contenders"]}
    assert rows == {"grammar": 1, "taught": 1}
    assert by_grammar("--adapter", adapter).exit_code == 2

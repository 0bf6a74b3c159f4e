"""A case file gives back what was written, and says where it is broken."""

import gzip
import json
from pathlib import Path

import pytest

from hmas_agents.case_file import CaseError, Plan, candidate_key, labelled, read_cases, write_cases
from tests.evals.agent_samples import PLAN, case


def lines_of(path: Path) -> list[dict[str, object]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


def rewrite(path: Path, number: int, **changes: object) -> None:
    rows = lines_of(path)
    rows[number] |= changes
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["cases.jsonl", "cases.jsonl.gz"])
def test_what_is_read_is_what_was_written(tmp_path, name):
    cases = [case("a"), case("b", scenario="flood", split="held_out", labels={}, plan=None)]
    path = tmp_path / "folder" / name
    assert write_cases(path, cases) == 2
    assert read_cases(path) == cases
    assert [each.name for each in path.parent.iterdir()] == [name]


def test_equal_cases_are_equal_bytes_whenever_they_are_written(tmp_path, monkeypatch):
    write_cases(tmp_path / "one.jsonl.gz", [case()])
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_cases(tmp_path / "two.jsonl.gz", [case()])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"split": "both"}, "split: Input should be 'development' or 'held_out'"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"allowed": ["edf", "nonsense"]}, "allowed: there is no policy 'nonsense'"),
        ({"labels": {}}, "plan: goes with labels"),
        ({"labels": {"edf": [0.5]}}, "labels.edf: 1 futures, the plan has 2"),
        ({"labels": {"edf": [0.5, 1.5]}}, "labels.edf: must be shares of 0..1"),
        ({"situation": {"snapshot": {}}}, "situation.snapshot"),
        ({"id": "a"}, "id: 'a' is in the file twice"),
        ({"split": "held_out"}, "split: scenario 'calm' is in both splits"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path, changes, told):
    path = tmp_path / "cases.jsonl"
    write_cases(path, [case("a"), case("b")])
    rewrite(path, 1, **changes)
    with pytest.raises(CaseError) as error:
        read_cases(path)
    assert str(error.value).startswith(f"{path}:2: {told}")


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\x1f\x8bnot gzip", b"\xff\xfe"])
def test_a_file_without_cases_is_an_error(tmp_path, content):
    path = tmp_path / "cases.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaseError, match=f"^{path}:1: "):
        read_cases(path)


def test_a_candidate_is_named_by_what_differs_from_its_defaults():
    assert candidate_key("slide") == "slide"
    assert candidate_key("slide", {"kappa": 20.0}) == "slide"
    assert candidate_key("slide", {"kappa": 40.0}) == "slide:kappa=40"
    with pytest.raises(ValueError, match="'nonsense' does not exist"):
        candidate_key("nonsense")
    with pytest.raises(ValueError, match="no parameter 'nonsense'"):
        candidate_key("slide", {"nonsense": 1.0})
    with pytest.raises(ValueError, match="outside"):
        candidate_key("slide", {"kappa": -1})


def test_labels_of_another_plan_do_not_mix():
    more = labelled(case(), {"slide:kappa=40": (0.1, 0.2)}, PLAN)
    assert set(more.labels) == {"fcfs", "edf", "slide", "slide:kappa=40"}
    with pytest.raises(ValueError, match="c1: labelled by"):
        labelled(case(), {"edf": (0.1,)}, Plan(1, 7, 20.0))

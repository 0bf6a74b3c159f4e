"""`hmas eval agent` on the committed cases: scores, gates, a model by HTTP or from a cassette."""

import json
from pathlib import Path

import pytest

from evals.agent import labels as labelling
from evals.agent.contenders import Model
from hmas_agents import rule_table
from hmas_agents.case_file import candidate_key, candidates_of, read_cases, write_cases
from hmas_agents.cli import main
from hmas_agents.config import ModelConfig
from hmas_agents.records import Proposal
from prompts.loader import load_prompt
from tests.agents.model_server import completion, proposals, serving
from tests.evals.agent_samples import case

SMALL = Path("evals/cases/small.jsonl.gz")
SCENES = Path("evals/cases/scenes.jsonl.gz")
PUBLISHED = Path("evals/results/agent_cases/agent.json")


def agent(capsys, *args):
    """Exit code, standard output and error of `hmas eval agent`."""
    try:
        main(["eval", "agent", *(str(arg) for arg in args)])
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def cases(tmp_path, monkeypatch):
    """Two calm development cases and one held out where fcfs is best; the rules say `edf`."""
    monkeypatch.setattr(rule_table, "choose", lambda state: Proposal("rules", "edf"))
    held = case(
        "h", scenario="odd", split="held_out",
        labels={"fcfs": (1.0, 1.0), "edf": (0.5, 0.5), "slide": (0.4, 0.4)},
    )  # fmt: skip
    path = tmp_path / "cases.jsonl"
    write_cases(path, [case("a"), case("b"), held])
    return path


def scores(out):
    return {(each["contender"], each["split"]): each for each in json.loads(out)["scores"]}


def test_the_committed_cases_are_labelled_small_and_synthetic():
    assert SMALL.stat().st_size < 100_000
    found = read_cases(SMALL)
    assert {each.split for each in found} == {"development", "held_out"}
    for each in found:
        candidates = {candidate_key(*candidate) for candidate in candidates_of(each.allowed)}
        assert set(each.labels) >= candidates
        assert set(each.twin) == candidates
        assert str(each.provenance["workload"]).startswith("synthetic tenants")


def test_the_large_case_set_is_simulated_and_live_and_split_by_scenario():
    found = read_cases(SCENES)
    assert len(found) >= 200
    assert {each.provenance["kind"] for each in found} == {"simulated", "live"}
    of_split = {
        split: {each.scenario for each in found if each.split == split}
        for split in ("development", "held_out")
    }
    assert not of_split["development"] & of_split["held_out"]
    assert all(len(scenarios) >= 5 for scenarios in of_split.values())
    assert all(each.labels and each.twin for each in found)


def test_the_published_table_is_what_the_committed_cases_give(capsys):
    code, out, _ = agent(capsys, "--cases", SCENES, "--json")
    assert code == 0
    published = json.loads(PUBLISHED.read_text())
    assert json.loads(out)["labels_best"] == published["labels_best"]
    without_model = [each for each in published["scores"] if each["validity"] is None]
    assert len(without_model) == 2 * (4 + 7)
    assert json.loads(out)["scores"] == without_model


def test_without_a_model_rules_chance_twin_and_the_best_fixed_are_scored(capsys, cases):
    code, out, _ = agent(capsys, "--cases", cases, "--json")
    assert code == 0
    found = scores(out)
    assert {name for name, _ in found} == {
        "rules", "random", "stay", "twin", "best fixed (slide)", "fixed edf", "fixed fcfs"
    }  # fmt: skip
    assert found["best fixed (slide)", "development"]["regret"]["mean"] == 0.0
    assert found["best fixed (slide)", "held_out"]["regret"]["mean"] == pytest.approx(0.6)
    assert found["fixed fcfs", "held_out"]["regret"]["mean"] == 0.0
    assert found["stay", "held_out"]["regret"]["mean"] == pytest.approx(0.5)
    assert found["rules", "development"]["cases"] == 2
    assert found["rules", "development"]["validity"] is None
    assert json.loads(out)["labels_best"]["held_out"]["fcfs"] == 1


def test_the_gate_is_on_the_rules_where_no_model_is_asked(capsys, cases):
    code, _, err = agent(capsys, "--cases", cases, "--threshold", 0.4)
    assert code == 1
    assert "rules: regret 0.500 on the held_out cases is above 0.4" in err
    assert agent(capsys, "--cases", cases, "--threshold", 0.6)[0] == 0


def test_a_model_is_asked_in_several_orders_and_gated(capsys, cases):
    with serving(completion(proposals("fcfs"))) as server:
        args = ["--cases", cases, "--model-url", server.url, "--model", "tiny", "--rotations", 3]
        code, out, _ = agent(capsys, *args, "--threshold", 0.3, "--json")
    assert len(server.asked) == 3 * 3
    found = scores(out)
    model = found["tiny, policy v1", "held_out"]
    assert model["regret"]["mean"] == 0.0
    assert (model["validity"], model["steady"]) == (1.0, 1.0)
    assert model["first_listed"] == pytest.approx(1 / 3, abs=1e-6)
    assert model["latency_s"] > 0
    assert found["tiny, policy v1", "development"]["regret"]["mean"] == pytest.approx(0.355)
    assert code == 0  # the held-out cases decide, and there it is right


def test_a_recorded_model_answers_again_without_an_endpoint(capsys, cases, tmp_path):
    tape = tmp_path / "tape.jsonl"
    args = ["--cases", cases, "--cassette", tape, "--model", "tiny", "--rotations", 2, "--json"]
    with serving(completion(proposals("slide"))) as server:
        _, recorded, _ = agent(capsys, *args, "--model-url", server.url)
    code, played, _ = agent(capsys, *args)
    assert code == 0
    assert scores(recorded)["tiny, policy v1", "held_out"]["latency_s"] is None
    assert played == recorded
    code, _, err = agent(capsys, *args, "--rotations", 3)
    assert code == 2
    assert f"cassette {tape}: no reply for" in err


def test_proposals_with_parameters_get_labels_of_the_same_plan(capsys, cases, monkeypatch):
    asked = []

    def label_all(questions, **_):
        asked.extend(questions)
        return [{candidate_key(*c): (0.95, 0.97) for c in q.candidates} for q in questions]

    monkeypatch.setattr(labelling, "label_all", label_all)
    reply = json.dumps(
        {"proposals": [{"policy": "slide", "params": {"kappa": 40}, "confidence": 0.5,
                        "reason": "more"}]}
    )  # fmt: skip
    with serving(completion(reply)) as server:
        args = ["--cases", cases, "--model-url", server.url, "--model", "m", "--rotations", 1]
        _, out, _ = agent(capsys, *args, "--json")
    assert [(q.title, q.candidates) for q in asked] == [
        (name, (("slide", {"kappa": 40.0}),)) for name in ("a", "b", "h")
    ]
    assert {(q.plan.draws, q.plan.seed) for q in asked} == {(2, 7)}
    assert scores(out)["m, policy v1", "development"]["regret"]["mean"] == 0.0
    assert scores(out)["best fixed (slide)", "development"]["regret"]["mean"] > 0.05


def test_files_and_tables_say_what_the_json_says(capsys, cases, tmp_path):
    code, out, _ = agent(capsys, "--cases", cases, "--out", tmp_path / "report")
    assert code == 0
    assert "held out: 1 cases of 1 scenarios" in out
    kept = json.loads((tmp_path / "report/agent.json").read_text())
    assert {each["contender"] for each in kept["scores"]} >= {"rules", "twin"}
    assert "| rules |" in (tmp_path / "report/agent.md").read_text()
    assert (tmp_path / "report/agent.svg").read_text().count("<svg") == 1


def test_what_cannot_be_used_is_named(capsys, cases, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"id": "x"}\n')
    for args, told in (
        (["--cases", tmp_path / "none.jsonl"], "none.jsonl:1: file: cannot be read"),
        (["--cases", tmp_path / "broken.jsonl"], "broken.jsonl:1: scenario: Field required"),
        (["--cases", cases, "--prompt", "current"], "asks a model"),
        (["--cases", cases, "--cassette", tmp_path / "no.jsonl"], "no such file"),
    ):
        code, _, err = agent(capsys, *args)
        assert code == 2
        assert told in " ".join(err.replace("│", " ").split())


def test_a_limit_takes_cases_from_the_whole_file(capsys, tmp_path):
    path = tmp_path / "many.jsonl"
    write_cases(path, [case(f"c{i}", scenario=f"s{i}") for i in range(9)])
    _, out, _ = agent(capsys, "--cases", path, "--limit", 3, "--json")
    assert scores(out)["rules", "development"]["scenarios"] == 3


def test_asked_at_the_same_time_it_scores_the_same(capsys, cases, tmp_path):
    args = ["--cases", cases, "--model", "tiny", "--rotations", 3, "--json"]
    with serving(completion(proposals("edf"))) as server:
        args += ["--model-url", server.url]
        _, one_by_one, _ = agent(capsys, *args, "--cassette", tmp_path / "a")
        assert len(server.asked) == 3  # the cases look alike: one question in three orders
        code, out, _ = agent(capsys, *args, "--cassette", tmp_path / "b", "--at-once", 4)
    assert code == 0
    assert out == one_by_one


def test_a_model_that_was_closed_is_asked_nothing_more():
    with serving(completion(proposals("edf"))) as server:
        config = ModelConfig(base_url=server.url, name="tiny")
        model = Model(config, load_prompt("policy", "current"), rotations=3, at_once=2)
        assert len(model(case("a")).asked) == 3
        model.close()  # as Ctrl-C does, while others are asking
        assert model(case("b")).asked == ()
        assert len(server.asked) == 3

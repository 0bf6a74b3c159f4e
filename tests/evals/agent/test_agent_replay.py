"""A recorded run is asked again: other prompts, models and rules, side by side with then."""

import json
from dataclasses import asdict

import pytest

from evals.agent import labels as labelling
from evals.agent import replay
from evals.agent.contenders import Model
from evals.agent.replay import summarise
from evals.agent.replay_short import replay_short
from evals.progress import CaseProgress
from hmas_agents import rule_table
from hmas_agents.agents.roster import RULE_AGENTS
from hmas_agents.case_file import candidate_key
from hmas_agents.cli import main
from hmas_agents.config import ModelConfig, load_config
from hmas_agents.ledger import Ledger
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.records import Proposal, ToolCall
from hmas_agents.situation import encode_situation
from prompts.loader import load_prompt
from tests.agents.model_server import completion, proposals, serving
from tests.agents.states import short_state
from tests.evals.agent_samples import situation
from tests.hmas_agents.samples import record

MEANS = {
    "fcfs": 0.2, "edf": 0.6, "edf:kappa=3": 0.8, "srpt": 0.8, "sjf": 0.5,
}  # fmt: skip


def long_record(load, *proposals, model=""):
    seen = situation("edf", load=load)
    return record(
        at_s=100.0, state=asdict(seen.state), situation=encode_situation(seen), model=model,
        proposals=list(proposals), chosen={"policy": "edf", "params": {}}, faults=[],
        model_latency_s=0.8 if model else None, model_tokens=500 if model else None,
    )  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    """Run 1: a model said fcfs, then nothing; rules said kappa 3 twice. Run 2: old rows."""
    path = tmp_path / "l.sqlite"
    book = Ledger(path, label="first", config=load_config(None, {"model.enabled": False}))
    book.record_decision(
        long_record(
            0.5,
            Proposal("model", "fcfs", {}, "why not"),
            Proposal("rules", "edf", {"kappa": 3.0}),
            model="m",
        )
    )
    book.record_decision(long_record(1.0, Proposal("rules", "edf", {"kappa": 3.0}), model="m"))
    book.record_decision(record(situation={}))
    book.close()
    book = Ledger(path, label="second", config=load_config(None))
    book.record_decision(record(situation={}))
    book.close()
    return path


@pytest.fixture
def known_labels(monkeypatch):
    """The twin's figures are known beforehand, two futures each."""
    asked = []

    def label_all(questions, **_):
        asked.extend(questions)
        return [
            {
                candidate_key(*each): (MEANS[candidate_key(*each)] - 0.01,
                                       MEANS[candidate_key(*each)] + 0.01)
                for each in question.candidates
            }
            for question in questions
        ]  # fmt: skip

    monkeypatch.setattr(labelling, "label_all", label_all)
    return asked


def hmas(capsys, *args):
    with pytest.raises(SystemExit) as left:
        main([str(arg) for arg in args])
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


def test_a_model_is_asked_again_and_what_it_says_is_priced(ledger, known_labels):
    recorded = replay.load_run(ledger, 1, None)
    assert (len(recorded.pairs), recorded.skipped) == (2, 1)
    with serving(completion(proposals("srpt")), completion("no json")) as server:
        config = ModelConfig(base_url=server.url, name="small")
        model = Model(config, load_prompt("policy", 1), rotations=1)
        done: list[int] = []
        replayed = replay.ask_again(recorded, model, done.append)
        model.close()
    assert done == [1, 2]
    assert "Load: light" in server.asked[0]["messages"][1]["content"]
    first, second = replay.label(recorded, replayed, 2, jobs=1, progress=CaseProgress())
    assert (first.old.policy, first.old.valid, first.old.attainment) == ("fcfs", True, 0.2)
    assert (first.new.source, first.new.policy, first.new.reason) == ("model", "srpt", "try srpt")
    assert first.changed
    assert first.best == "srpt"
    assert first.best_attainment == pytest.approx(0.8)
    assert first.old.regret == pytest.approx(0.6)
    assert first.new.regret == pytest.approx(0.0)
    assert (second.old.source, second.old.valid) == ("rules", False)
    assert (second.new.source, second.new.valid) == ("rules", False)  # the table stands in
    assert not second.changed

    total = summarise([first, second], recorded.skipped)
    assert (total.decisions, total.skipped, total.changed) == (2, 1, 1)
    assert total.regret_old is not None
    assert total.regret_old.mean == pytest.approx(0.3)
    assert total.regret_change is not None
    assert total.regret_change.mean == pytest.approx(-0.3)
    assert total.figures["old"] == {"validity": 0.5, "latency_s": 0.8, "tokens": 500.0}
    assert total.figures["new"]["validity"] == 0.5


def test_each_decision_looks_as_far_ahead_as_it_did_then(ledger, known_labels):
    recorded = replay.load_run(ledger, 1, None)
    recorded.pairs[0][0].record.twin["horizon_s"] = 17.0
    replayed = replay.ask_again(recorded, None, lambda _: None)
    replay.label(recorded, replayed, 5, jobs=1, progress=CaseProgress())
    assert [question.plan.horizon_s for question in known_labels] == [17.0, 60.0]
    assert {question.plan.draws for question in known_labels} == {5}


def test_an_edited_rule_shows_where_it_decides_otherwise(ledger, capsys, monkeypatch):
    args = ["replay", 1, "--rules", "--draws", 0, "--ledger", ledger]
    code, out, _ = hmas(capsys, *args, "--json")
    before = json.loads(out)
    assert code == 0
    assert [each["changed"] for each in before["decisions"]] == [False, False]
    new = Proposal("rules", "srpt", reason="new")
    monkeypatch.setattr(rule_table, "choose", lambda state: new)
    _, out, _ = hmas(capsys, *args, "--json")
    after = json.loads(out)
    assert [each["new"]["policy"] for each in after["decisions"]] == ["srpt", "srpt"]
    assert (after["summary"]["changed"], after["summary"]["skipped"]) == (2, 1)
    assert after["summary"]["regret_new"] is None  # no twin was asked
    code, out, _ = hmas(capsys, *args)
    assert "2 of 2 decisions changed" in out
    assert "1 decisions hold no situation" in out


def test_a_rule_that_names_what_is_not_allowed_stays(ledger, monkeypatch):
    monkeypatch.setattr(rule_table, "choose", lambda state: Proposal("rules", "tiered"))
    recorded = replay.load_run(ledger, 1, 1)
    (each,) = replay.ask_again(recorded, None, lambda _: None)
    assert (each.new.policy, each.new.reason) == ("edf", "tiered is not allowed: stay")


def test_the_command_names_what_is_missing(ledger, capsys):
    for args, told in (
        ([9], "there is no run 9; there are 1, 2"),
        ([2], "run 2: no situation is recorded"),
        ([1, "--decision", 77], "has no long decision 77"),
        ([1, "--prompt", "current"], "name one with --model-url"),
        ([1, "--rules", "--model", "x"], "ask a model"),
        ([1, "--horizon", "middle"], "'--horizon'"),
    ):
        code, _, err = hmas(capsys, "replay", *args, "--draws", 0, "--ledger", ledger)
        assert code == 2
        assert told in " ".join(err.replace("│", " ").split())


def test_a_model_that_does_not_answer_fails_the_replay_and_is_named(ledger, capsys):
    url = "http://127.0.0.1:9/v1"
    args = ["replay", 1, "--model-url", url, "--model", "m", "--draws", 0, "--ledger", ledger]
    code, out, err = hmas(capsys, *args)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"hmas replay: {url}: model_unreachable: ")


def test_old_and_new_are_priced_in_attainment_and_written_as_policies(
    ledger, known_labels, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    args = ["replay", 1, "--rules", "--draws", 2, "--jobs", 1, "--ledger", ledger]
    code, out, _ = hmas(capsys, *args)
    assert code == 0
    assert "goodput" not in out
    assert out.count("attainment") == 3
    assert "edf:kappa=3 (rules)" in out
    assert "80.0%" in out


# -- the short horizon ---------------------------------------------------------------


def short_record(at_s, state, *calls, trigger="tick"):
    return record(
        horizon="short", at_s=at_s, trigger=trigger, state=asdict(state), tool_calls=list(calls),
        proposals=[],
    )  # fmt: skip


def call(tool, through=True, **args):
    ack = {"accepted": True} if through else {}
    return ToolCall(tool, {**args, "reason": "then"}, through, "", ack=ack)


def share_on_preemptions(state):
    wanted = {"share": 0.05, "reason": "preempted"}
    return [{"name": "set_prefill_share", "args": wanted}] if state.preemptions_per_s else []


@pytest.fixture
def ticks(tmp_path, monkeypatch):
    """Preemptions at 10 and 11 s: a call then, and one that came too soon after it."""
    for concern in RULE_AGENTS:
        monkeypatch.setitem(RULE_AGENTS, concern, lambda state: [])
    monkeypatch.setitem(RULE_AGENTS, "prefill", share_on_preemptions)
    path = tmp_path / "s.sqlite"
    book = Ledger(path, config=load_config(None))
    book.record_decision(short_record(2.0, short_state(), trigger="start"))
    for at_s, through in ((10.0, True), (11.0, False)):
        pressed = short_state(now_s=at_s, preemptions_per_s=1.0)
        made = call("set_prefill_share", through=through, share=0.05)
        book.record_decision(short_record(at_s, pressed, made))
    book.close()
    return path


def test_unchanged_rules_decide_as_they_did(ticks):
    first, second = replay_short(ticks, 1)
    assert first.old == first.new == {"set_prefill_share": {"share": 0.05}}
    assert second.old == second.new == {}  # a second after the first: the pace holds it


def test_an_edited_rule_agent_shows_where_it_calls_otherwise(ticks, monkeypatch, capsys):
    monkeypatch.setitem(RULE_AGENTS, "prefill", lambda state: [])
    code, out, _ = hmas(capsys, "replay", 1, "--horizon", "short", "--ledger", ticks, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["summary"] == {"decisions": 2, "changed": 1}
    assert "set_prefill_share" in told["decisions"][0]["old"]
    assert "set_prefill_share" not in told["decisions"][0]["new"]
    _, out, _ = hmas(capsys, "replay", 1, "--horizon", "short", "--ledger", ticks)
    assert "1 of 2 recorded ticks would go otherwise" in out


def test_a_run_that_is_not_there_says_which_are(ticks):
    with pytest.raises(LedgerError, match="no run 4; there are 1"):
        replay_short(ticks, 4)

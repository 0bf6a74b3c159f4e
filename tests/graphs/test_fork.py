"""A recorded decision goes on from a step with something changed; nothing is applied."""

import json
import sqlite3
from dataclasses import replace

import pytest

from graphs.checkpoints import DURABILITY, DecisionSaver, checkpoints_of, config_for, thread_of
from graphs.fork import Change, ForkError, fork
from graphs.long_horizon import build_long_horizon
from graphs.parts import build_parts
from graphs.recorded_engine import RecordedEngine
from hmas_agents.cli import main
from hmas_agents.config import load_config
from hmas_agents.ledger.reader import LedgerReader
from hmas_agents.records import Proposal
from serving.contracts import Decision
from serving.policies import POLICIES
from tests.agents.model_server import completion, proposals, serving
from tests.agents.scripted import Scripted
from tests.evals.agent_samples import situation
from tests.fakes import FakeEngine
from tests.graphs.test_control_loop import serve

AT_S = 60.0


def scripted(**known):
    """Each policy's attainment; half where none is given."""
    return Scripted(**dict.fromkeys(POLICIES, 0.5) | known)


def settings(**changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    quiet = {
        "model.enabled": False, "control.mode": "act", "control.ttl_s": 1000.0,
        "control.allow_policies": ("fcfs", "sjf", "edf", "density", "slide"),
    }  # fmt: skip
    return load_config(None, {**quiet, **dotted})


def decide(ledger, config, engine=None):
    """One long decision on a busy engine, its steps kept beside the ledger."""
    engine = engine or FakeEngine(policy="fcfs")
    parts = build_parts(
        engine, config, ledger, run_label="", controller_id="hmas",
        on_decision=lambda _: None, forecaster=scripted(edf=0.9, fcfs=0.6),
    )  # fmt: skip
    parts.watch.look()
    serve(engine, 80, at_s=0.0)
    engine.now_s = AT_S
    saver = DecisionSaver(checkpoints_of(ledger))
    graph = build_long_horizon(parts)
    graph.checkpointer = saver
    thread_id = thread_of(1, AT_S)
    graph.invoke({"trigger": "tick", "budget_s": None}, config_for(thread_id),
                 durability=DURABILITY)  # fmt: skip
    saver.close()
    parts.close()
    return engine


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "l.sqlite"


def test_a_proposal_by_hand_is_judged_as_any_other(ledger):
    engine = decide(ledger, settings())
    asked = scripted(sjf=0.95, edf=0.9, fcfs=0.6)
    forked = fork(
        ledger, thread_of(1, AT_S),
        Change("verify", settings(), proposals=[Proposal("person", "sjf", {"kappa": 30.0})]),
        asked,
    )  # fmt: skip
    by_hand = next(each for each in forked.proposals if each.source == "person")
    assert (by_hand.verdict, by_hand.predicted) == ("ok", 0.95)
    assert forked.chosen["policy"] == "sjf"
    assert forked.chosen["applied"] is False
    assert (forked.at_s, forked.mode, forked.thread_id) == (AT_S, "advise", "")
    assert engine.policy == "edf"  # what was decided then; the fork touched nothing
    assert asked.situation.snapshot.policy == "fcfs"


def test_without_a_change_the_decision_repeats_itself(ledger):
    decide(ledger, settings())
    with LedgerReader(ledger) as reader:
        (stored,) = reader.list_decisions(1, "long")
    forked = fork(
        ledger, thread_of(1, AT_S), Change("summarise", settings()), scripted(edf=0.9, fcfs=0.6)
    )
    assert forked.summary == stored.record.summary
    assert [(p.source, p.policy, p.predicted) for p in forked.proposals] == [
        (p.source, p.policy, p.predicted) for p in stored.record.proposals
    ]
    assert forked.chosen["policy"] == stored.record.chosen["policy"] == "edf"


def test_another_model_is_asked_the_recorded_question(ledger):
    decide(ledger, settings())
    with serving(completion(proposals("density"))) as model:
        config = settings(model__enabled=True, model__base_url=model.url, model__name="small")
        change = Change("summarise", config)
        forked = fork(ledger, thread_of(1, AT_S), change, scripted(edf=0.9, fcfs=0.6))
    assert len(model.asked) == 1
    assert forked.summary in model.asked[0]["messages"][1]["content"]
    assert [p.policy for p in forked.proposals if p.source == "model"] == ["density"]


def test_the_guardrails_know_the_switches_before(ledger):
    decide(ledger, settings())
    change = Change(
        "verify", settings(), [Proposal("person", "sjf")], switched_at_s=[AT_S - 5.0]
    )
    forked = fork(ledger, thread_of(1, AT_S), change, scripted(sjf=0.99))
    by_hand = next(each for each in forked.proposals if each.source == "person")
    assert by_hand.verdict.startswith("dwell: 5 s")
    assert forked.chosen["policy"] == "fcfs"


def test_the_twin_knows_how_wrong_it_had_been(ledger):
    decide(ledger, settings())
    twin = {"edf": 0.9, "fcfs": 0.6}
    calm = fork(ledger, thread_of(1, AT_S), Change("verify", settings()), scripted(**twin))
    assert calm.chosen["policy"] == "edf"
    wrong = Change("verify", settings(), past=[(0.9, 0.1)] * 20)
    forked = fork(ledger, thread_of(1, AT_S), wrong, scripted(**twin))
    assert forked.twin["error"] > calm.twin["error"]


def test_a_decision_whose_steps_are_gone_says_so(ledger):
    with pytest.raises(ForkError, match="no checkpoints there"):
        fork(ledger, "run-1-at-1.000", Change("verify", settings()))
    decide(ledger, settings())
    with pytest.raises(ForkError, match="'propose' of 'run-9"):
        fork(ledger, "run-9-at-1.000", Change("verify", settings()))


def test_a_recorded_engine_stands_still():
    seen = situation("slide")
    engine = RecordedEngine(seen)
    refused = engine.apply(Decision("c", 4, 15.0, "edf", {}, seen.snapshot.limits))
    assert not refused.accepted
    assert not engine.renew("c", 15.0).accepted
    assert not engine.release("c").accepted
    assert engine.snapshot() == seen.snapshot
    assert engine.now() == 100.0
    assert engine.journal(5).outcomes == ()
    assert engine.inside() == seen.inside
    assert engine.inside(limit=0) == replace(seen.inside, requests=(), left_out=1)


def hmas(capsys, *args):
    """Exit code, standard output, and what was wrong."""
    with pytest.raises(SystemExit) as left:
        main(list(args))
    said = capsys.readouterr()
    return left.value.code, said.out, said.err


def note_thread(ledger, thread_id):
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE decisions SET thread_id = ?", (thread_id,))


def test_the_command_shows_then_and_now(ledger, capsys):
    twin_off = settings(twin__enabled=False)
    decide(ledger, twin_off)
    note_thread(ledger, thread_of(1, AT_S))
    with LedgerReader(ledger) as reader:
        (stored,) = reader.list_decisions(1, "long")
    args = ["fork", str(stored.id), "--policy", "slide", "--param", "kappa=40"]
    code, out, err = hmas(capsys, *args, "--ledger", str(ledger), "--json")
    assert (code, err) == (0, "")
    forked = json.loads(out)
    assert (forked["decision"], forked["step"], forked["mode"]) == (stored.id, "verify", "advise")
    by_hand = next(each for each in forked["proposals"] if each["source"] == "person")
    assert (by_hand["policy"], by_hand["params"], by_hand["verdict"]) == (
        "slide", {"kappa": 40.0}, "ok"
    )  # fmt: skip
    code, out, _ = hmas(capsys, *args, "--ledger", str(ledger))
    assert code == 0
    assert "slide kappa=40" in out
    assert out.count("then: ") == out.count("now: ") == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--policy", "edf", "--prompt", "current"], "joins what was proposed"),
        (["--param", "kappa=1"], "goes with --policy"),
        (["--policy", "slide", "--param", "kappa"], "KEY=NUMBER"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(ledger, capsys, args, told):
    decide(ledger, settings(twin__enabled=False))
    note_thread(ledger, thread_of(1, AT_S))
    code, _, err = hmas(capsys, "fork", "1", *args, "--ledger", str(ledger))
    assert code == 2
    assert told in err


def test_a_decision_of_a_run_without_checkpoints_says_so(ledger, capsys):
    decide(ledger, settings(twin__enabled=False))
    note_thread(ledger, "")
    code, _, err = hmas(capsys, "fork", "1", "--policy", "edf", "--ledger", str(ledger))
    assert code == 2
    assert "decision 1 has no checkpoints" in err

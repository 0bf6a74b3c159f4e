"""A recorded decision goes on from a step with something changed; nothing is applied."""

import json
import sqlite3
from dataclasses import replace

import pytest

from graphs.fork import Change, ForkError, RecordedEngine, fork
from graphs.long_horizon import build_long_horizon
from graphs.parts import build_parts
from hmas_agents.cli import main
from hmas_agents.config import load_config
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.records import Proposal
from hmas_agents.twin.prediction import Past
from serving.contracts import Decision
from serving.policies import POLICIES
from tests.agents.model_server import completion, proposals, serving
from tests.agents.scripted import Scripted
from tests.evals.agent_samples import situation
from tests.fakes import FakeEngine
from tests.graphs.fake_loop import serve
from tests.hmas_agents.samples import record

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
    """One long decision on a busy engine, as the ledger has it; and the engine."""
    engine = engine or FakeEngine(policy="fcfs")
    parts = build_parts(
        engine, config, ledger, run_label="", controller_id="hmas",
        on_decision=lambda _: None, forecaster=scripted(edf=0.9, fcfs=0.6),
    )  # fmt: skip
    parts.watch.look()
    serve(engine, 80, at_s=0.0)
    engine.now_s = AT_S
    build_long_horizon(parts).invoke({"trigger": "tick", "budget_s": None})
    parts.close()
    with LedgerReader(ledger) as reader:
        (stored,) = reader.list_decisions(1, "long")
    return stored, engine


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "l.sqlite"


def test_a_proposal_by_hand_is_judged_as_any_other(ledger):
    stored, engine = decide(ledger, settings())
    asked = scripted(sjf=0.95, edf=0.9, fcfs=0.6)
    by_hand = Proposal("person", "sjf", {"kappa": 30.0})
    forked = fork(stored, Change("verify", settings(), proposals=[by_hand]), asked)
    by_hand = next(each for each in forked.proposals if each.source == "person")
    assert (by_hand.verdict, by_hand.predicted) == ("ok", 0.95)
    assert forked.chosen["policy"] == "sjf"
    assert forked.chosen["applied"] is False
    assert (forked.at_s, forked.mode) == (AT_S, "advise")
    assert engine.policy == "edf"  # what was decided then; the fork touched nothing
    assert asked.situation.snapshot.policy == "fcfs"


def test_what_may_not_go_live_is_predicted_for_who_asks_and_still_not_chosen(ledger):
    """Even where what is in force leaves nothing to be gained, and the twin would not look."""
    allowed = {"control__allow_policies": ("edf", "density", "slide")}
    stored, _ = decide(ledger, settings(**allowed))
    asked = scripted(fcfs=0.99, sjf=1.0)
    by_hand = Proposal("person", "sjf", {})
    forked = fork(stored, Change("verify", settings(**allowed), proposals=[by_hand]), asked)
    by_hand = next(each for each in forked.proposals if each.source == "person")
    assert by_hand.verdict == "allow-list: 'sjf' is not allowed by control.allow_policies"
    assert by_hand.predicted == 1.0
    assert forked.chosen["policy"] == "fcfs"


@pytest.mark.parametrize("step", ["summarise", "verify"])
def test_without_a_change_the_decision_repeats_itself(ledger, step):
    stored, _ = decide(ledger, settings())
    forked = fork(stored, Change(step, settings()), scripted(edf=0.9, fcfs=0.6))
    assert forked.summary == stored.record.summary
    assert [(p.source, p.policy, p.predicted) for p in forked.proposals] == [
        (p.source, p.policy, p.predicted) for p in stored.record.proposals
    ]
    assert forked.chosen["policy"] == stored.record.chosen["policy"] == "edf"


def test_another_model_is_asked_the_recorded_question(ledger):
    stored, _ = decide(ledger, settings())
    with serving(completion(proposals("density"))) as model:
        config = settings(model__enabled=True, model__base_url=model.url, model__name="small")
        forked = fork(stored, Change("summarise", config), scripted(edf=0.9, fcfs=0.6))
    assert len(model.asked) == 1
    assert forked.summary in model.asked[0]["messages"][1]["content"]
    assert [p.policy for p in forked.proposals if p.source == "model"] == ["density"]


def test_the_guardrails_know_the_switches_before(ledger):
    stored, _ = decide(ledger, settings())
    change = Change(
        "verify", settings(), [Proposal("person", "sjf")], switched_at_s=[AT_S - 5.0]
    )
    forked = fork(stored, change, scripted(sjf=0.99))
    by_hand = next(each for each in forked.proposals if each.source == "person")
    assert by_hand.verdict.startswith("dwell: 5 s")
    assert forked.chosen["policy"] == "fcfs"


def test_the_twin_knows_how_wrong_it_had_been(ledger):
    stored, _ = decide(ledger, settings())
    twin = {"edf": 0.9, "fcfs": 0.6}
    calm = fork(stored, Change("verify", settings()), scripted(**twin))
    assert calm.chosen["policy"] == "edf"
    wrong = Change("verify", settings(), past=[Past(0.9, 0.05, 0.1)] * 20)
    forked = fork(stored, wrong, scripted(**twin))
    assert calm.twin["error"] is None
    assert forked.twin["error"] == pytest.approx(0.8)


def test_from_propose_the_model_hears_the_recorded_words_again(ledger):
    with serving(completion(proposals("density")), completion(proposals("sjf"))) as model:
        asking = {"model__base_url": model.url, "model__name": "small"}
        config = settings(model__enabled=True, **asking)
        stored, _ = decide(ledger, config)
        forked = fork(stored, Change("propose", config), scripted(edf=0.9, fcfs=0.6))
    assert model.asked[1]["messages"] == model.asked[0]["messages"]
    assert [p.policy for p in stored.record.proposals if p.source == "model"] == ["density"]
    assert [p.policy for p in forked.proposals if p.source == "model"] == ["sjf"]


def test_words_that_were_never_written_cannot_be_said_again(ledger):
    stored, _ = decide(ledger, settings())
    with pytest.raises(ForkError, match="give --from summarise"):
        fork(stored, Change("propose", settings()))


def test_a_rollback_stays_one(ledger):
    stored, _ = decide(ledger, settings())
    back = Proposal("rules", "slide", {}, "rollback: realised 0.10, predicted at least 0.80")
    proposals = [*stored.record.proposals, back]
    rolled = replace(stored.record, trigger="rollback", proposals=proposals)
    change = Change("verify", settings(), switched_at_s=[AT_S - 1.0])
    forked = fork(replace(stored, record=rolled), change, scripted(slide=0.8, edf=0.9))
    verdicts = {p.policy: p.verdict for p in forked.proposals if p.source == "rules"}
    assert verdicts["slide"] == "ok", "a way back is never held up by the dwell time"
    assert verdicts["edf"].startswith("dwell")


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


def test_the_command_shows_then_and_now(ledger, capsys):
    stored, _ = decide(ledger, settings(twin__enabled=False))
    args = ["fork", str(stored.id), "--policy", "slide:kappa=40"]
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
    assert "person: slide:kappa=40  not predicted  guardrails: allowed" in out
    assert out.count("then: ") == out.count("now: ") == 1


def test_the_first_example_of_the_help_works_where_the_policy_is_not_allowed(ledger, capsys):
    decide(ledger, settings(twin__enabled=False, control__allow_policies=("edf", "density")))
    code, out, _ = hmas(capsys, "fork", "1", "--policy", "sjf", "--ledger", str(ledger))
    assert code == 0
    assert "allow-list: 'sjf' is not allowed by control.allow_policies  (asked by hand)" in out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--policy", "edf", "--prompt", "current"], "joins what was proposed"),
        (["--policy", "fastest"], "policy 'fastest' does not exist; there are fcfs, priority"),
        (["--policy", "slyde"], "did you mean 'slide'? there are fcfs"),
        (["--policy", "slide:kappa"], "'kappa' is not of the form parameter=number"),
        (["--from", "act"], "one of summarise, propose, verify"),
        (["--from", "verify", "--prompt", "current"], "comes after what --prompt"),
        (["--from", "propose", "--policy", "edf"], "joins before verify"),
        (["--from", "propose"], "no model was asked"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(ledger, capsys, args, told):
    decide(ledger, settings(twin__enabled=False))
    code, _, err = hmas(capsys, "fork", "1", *args, "--ledger", str(ledger))
    assert code == 2
    assert told in err


def test_a_decision_without_a_situation_says_so(ledger, capsys):
    kept = Ledger(ledger, config=settings())
    kept.record_decision(record(horizon="short", situation={}))
    kept.close()
    code, _, err = hmas(capsys, "fork", "1", "--policy", "edf", "--ledger", str(ledger))
    assert code == 2
    assert "decision 1: the ledger holds no situation" in err


def test_a_run_of_another_version_is_named_with_the_key_that_differs(ledger, capsys):
    decide(ledger, settings(twin__enabled=False))
    with sqlite3.connect(ledger) as database:
        ((config,),) = database.execute("SELECT config FROM runs").fetchall()
        database.execute(
            "UPDATE runs SET config = ?", (config.replace('"draws"', '"explore"'),)
        )
    code, _, err = hmas(capsys, "fork", "1", "--policy", "edf", "--ledger", str(ledger))
    assert code == 2
    assert "run 1: config.twin.explore: " in err
    assert "it was recorded by another version of H-MAS" in err

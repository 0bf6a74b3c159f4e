"""A person at the wheel: what is shown, asked, done, refused, and written into the ledger."""

import io
import json

import pytest

from hmas_agents.commands import wheel
from hmas_agents.config import load_config
from hmas_agents.ledger import Ledger, LedgerReader
from serving.contracts import PERSON, PINNED_S, Decision, Stopped
from serving.contracts.rules import rules_in_force
from tests.fakes import STOCK, FakeEngine
from tests.hmas_agents.samples import record


@pytest.fixture
def engine(monkeypatch, tmp_path):
    """An engine that a controller steers by edf; its token and ledger are where hmas looks."""
    engine = FakeEngine(now_s=100.0)
    engine.apply(Decision("hmas-1", 1, 15.0, "edf", {"kappa": 3.0}, STOCK))
    monkeypatch.setattr(wheel, "connect", lambda url, token: engine)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "hmas.token").write_text("secret")
    return engine


def recorded(tmp_path):
    with LedgerReader(tmp_path / "var" / "ledger.sqlite") as reader:
        return [stored.record for stored in reader.list_decisions(trigger="person")]



def type_in(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_apply_shows_what_changes_asks_and_holds_it(hmas, engine, monkeypatch, tmp_path):
    type_in(monkeypatch, "y\n")
    code, out, _ = hmas("apply", "--policy", "slide", "--limit", "token_budget=1024",
                        "--rule", "+slack", "--rule", "+serial", "--reason", "trial")  # fmt: skip
    assert code == 0
    assert "apply? [y/N]: " in out
    assert out.splitlines()[:2] == [
        "controller 'hmas-1' owns this engine for another 15.0 s",
        "edf:kappa=3 > slide, +slack +serial, token_budget 2048 > 1024, for 15m",
    ]
    assert "done: slide is in force, epoch 2" in out
    assert engine.owner.startswith(PERSON)
    assert engine.limits.token_budget == 1024
    assert rules_in_force(engine.limits) == ["slack", "serial"]
    assert engine.lease_until_s == 100.0 + 15 * 60
    (kept,) = recorded(tmp_path)
    assert kept.reason == f"hmas apply, asked by {engine.owner.removeprefix(PERSON)}: trial"
    assert (kept.epoch_before, kept.epoch_after) == (1, 2)
    _, out, _ = hmas("trace", "list")
    row = next(line for line in out.splitlines() if "person,apply" in line)
    assert "edf:kappa=3 > slide +slack +serial, token_budget 2048 > 1024" in row
    assert hmas("trace", "show", "last")[0] == 0


@pytest.mark.parametrize("typed", ["n\n", "\n", ""], ids=["no", "enter", "nobody is there"])
def test_without_a_yes_nothing_happens(hmas, engine, monkeypatch, tmp_path, typed):
    for command in (["stop"], ["pin"], ["apply", "--policy", "sjf"], ["start"]):
        type_in(monkeypatch, typed)
        code, _, err = hmas(*command)
        assert code == 1
        assert f"hmas {command[0]}: nothing was changed; scripts give --yes" in err
    assert (engine.owner, engine.stopped, len(engine.applied)) == ("hmas-1", None, 1)
    assert not (tmp_path / "var" / "ledger.sqlite").exists()


def test_pin_holds_what_is_in_force_until_anybody_releases_it(hmas, engine):
    code, out, _ = hmas("pin", "--yes")
    assert code == 0
    assert "edf:kappa=3, as it is, until `hmas release`" in out
    assert (engine.policy, engine.params) == ("edf", {"kappa": 3.0})
    assert engine.lease_until_s == 100.0 + PINNED_S
    _, out, _ = hmas("apply", "--limit", "follow_slack=on", "--for", "2h", "--yes")
    assert "holds this engine until it is released" in out
    assert engine.lease_until_s == 100.0 + 7200
    engine.owner = f"{PERSON}somebody@else"
    code, out, _ = hmas("release", "--yes")
    assert code == 0
    assert (engine.owner, engine.policy) == ("", "fcfs")


def test_a_controller_is_not_released_but_stopped(hmas, engine):
    code, _, err = hmas("release", "--yes")
    assert code == 1
    assert "controller 'hmas-1' owns this engine" in err
    assert "`hmas stop` keeps controllers out" in err


def test_stop_and_start_say_who_and_are_in_the_ledger(hmas, engine, tmp_path):
    code, out, _ = hmas("stop", "--yes", "--reason", "odd latencies")
    assert code == 0
    assert "done: fcfs is in force, epoch 2" in out
    assert engine.stopped == Stopped(engine.stopped.by, 100.0, "odd latencies")
    assert "@" in engine.stopped.by
    code, _, err = hmas("apply", "--policy", "sjf", "--yes")
    assert code == 1
    assert f"the engine refused: stopped by {engine.stopped.by}" in err
    code, out, _ = hmas("start", "--yes")
    assert code == 0
    assert f"stopped by {recorded(tmp_path)[0].chosen['stop']['by']} 0 s ago (odd latencies)" in out
    assert engine.stopped is None
    assert [r.trigger for r in recorded(tmp_path)] == [
        "person,stop", "person,apply", "person,start"
    ]  # fmt: skip
    assert recorded(tmp_path)[1].tool_calls[-1].accepted is False
    _, out, _ = hmas("trace", "list", "--trigger", "stop")
    assert "edf:kappa=3 > fcfs" in out


def test_status_shows_who_has_the_wheel(hmas, engine, monkeypatch):
    monkeypatch.setattr("serving.fleet.connect.connect", lambda url, token: engine)
    hmas("pin", "--yes")
    assert "holds this engine until it is released" in hmas("status", "--once")[1]
    hmas("stop", "--yes")
    assert "0 s ago; `hmas start` ends that" in hmas("status", "--once")[1]


def test_json_is_all_there_is_and_wants_a_yes(hmas, engine):
    code, _, err = hmas("pin", "--json")
    assert (code, engine.owner) == (2, "hmas-1")
    assert "add --yes" in err
    _, out, _ = hmas("pin", "--policy", "sjf:kappa=10", "--limit", "token_budget=9999",
                     "--yes", "--json")  # fmt: skip
    said = json.loads(out)
    assert said["ack"]["accepted"] is True
    assert said["changes"] == ["edf:kappa=3 > sjf:kappa=10"]
    assert said["snapshot"]["policy"] == "sjf"


def test_what_the_server_does_not_allow_is_said_before(hmas, engine, monkeypatch):
    type_in(monkeypatch, "n\n")
    _, out, _ = hmas("pin", "--limit", "token_budget=9999")
    assert "token_budget: 2048 is what fits here" in out


def test_the_decision_joins_the_newest_run_and_the_twin_may_be_asked(hmas, engine, tmp_path):
    ledger = Ledger(tmp_path / "var" / "ledger.sqlite", label="night", config=load_config(None))
    ledger.record_decision(record(horizon="long"))
    _, out, _ = hmas("pin", "--policy", "edf:kappa=10", "--yes")
    ledger.close()
    assert "what the twin says of it: hmas fork 1 --policy edf:kappa=10" in out
    with LedgerReader(tmp_path / "var" / "ledger.sqlite") as reader:
        assert [(run.label, run.decisions) for run in reader.list_runs()] == [("night", 2)]


def test_a_ledger_that_cannot_be_written_undoes_nothing(hmas, engine, tmp_path):
    (tmp_path / "var" / "ledger.sqlite").write_text("no database")
    code, _, err = hmas("stop", "--yes")
    assert code == 0
    assert engine.stopped is not None
    assert "not recorded" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["apply"], "name --policy, --limit or --rule"),
        (["apply", "--policy", "lottery"], "policy 'lottery' does not exist"),
        (["pin", "--policy", "edf:kappa=1e9"], "outside"),
        (["pin", "--rule", "slack"], "+NAME for on"),
        (["pin", "--rule", "+slakc"], "did you mean 'slack'?"),
        (["pin", "--limit", "token_budgte=1"], "did you mean 'token_budget'?"),
        (["pin", "--limit", "token_budget"], "a whole number (tokens)"),
        (["pin", "--limit", "token_budget=1.5"], "a whole number"),
        (["pin", "--limit", "shed=nan"], "is a number"),
        (["pin", "--limit", "triage=maybe"], "is on or off"),
        (["apply", "--policy", "sjf", "--for", "soon"], "90s, 15m, 2h"),
        (["apply", "--policy", "sjf", "--for", "0s"], "90s, 15m, 2h"),
    ],
)
def test_bad_words_change_nothing(hmas, engine, words, told):
    code, _, err = hmas(*words, "--yes")
    assert (code, len(engine.applied)) == (2, 1)
    assert told in err

"""`hmas tell`: understood, previewed, approved, in force; and whatever else people type."""

import io
import json
import sqlite3

import pytest

from graphs import dialogue
from graphs.intent import window
from hmas_agents.intent.change import Change
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.reading import Reading
from hmas_agents.intent.told import ToldStore, told_path
from hmas_agents.ledger import LedgerReader
from serving.contracts.contract import ClassTerms
from tests.agents.model_server import completion, serving
from tests.graphs.fake_loop import CONTRACT, engine_of_words, looking, serve
from tests.graphs.hostile_words import HOSTILE, fuzzed


class Sure(Grammar):
    """A reader that is as sure as it wants to be."""

    def read(self, text, now, names):
        return Reading(super().read(text, now, names).reply, 0.95)


@pytest.fixture
def hmas(capsys, monkeypatch, tmp_path):
    """A folder with a token; commands, and what is typed into them."""
    from hmas_agents import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "var").mkdir(mode=0o700)
    (tmp_path / "var" / "hmas.token").write_text("secret")
    (tmp_path / "hmas.toml").write_text("[control]\nshort_tick_s = 0.01\nttl_s = 5.0\n")

    def run(*argv, typed=""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as left:
            cli.main([str(part) for part in argv])
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "var" / "ledger.sqlite"


@pytest.fixture
def engine(monkeypatch):
    return engine_of_words(monkeypatch)


@pytest.fixture
def loop(engine, ledger, hmas):
    loop = looking(engine, ledger)
    yield loop
    loop.loop.close()


def told(ledger):
    with ToldStore(told_path(ledger)) as store:
        return store.texts(9)


def tells(ledger):
    with LedgerReader(ledger) as reader:
        rows = reader.list_decisions(trigger="person")
    return [row.record.tool_calls[0] for row in rows]


def test_the_dialogue_and_what_the_controller_makes_of_it(hmas, engine, ledger, loop):
    code, out, _ = hmas("tell", "expect 4x traffic from a until 02:00", typed="y\n")
    lines = out.splitlines()
    assert lines[0] == "understood   expect   a   4x requests   until 02:00"
    assert "by the twin, 32 futures of the next 60 s as if all of it began now" in lines[1]
    assert lines[2].split() == ["attainment", "now", "->", "then"]
    assert [line.split()[0] for line in lines[3:6]] == ["all", "a", "others"]
    assert "apply? [y/N/edit] " in out
    assert "no controller has taken it up yet" in out
    assert code == 1, "it is not in force before a controller says so"
    loop.short(62.0)
    (told_,) = told(ledger)
    assert [each.state for each in told_.changes] == ["in force"]
    code, out, _ = hmas("told")
    assert (code, "expect a 4x requests from 00:01 until 02:00   in force" in out) == (0, True)
    assert "preview: all " in out
    serve(engine, 10, at_s=62.0, met=False)
    loop.short(70.0)
    assert "measured: a 100.0% -> 0.0%, of 15 requests before and 10 since" in hmas("told")[1]
    (call,) = tells(ledger)
    assert (call.args["text"], call.args["reader"]) == (told_.text, "grammar")
    assert call.args["answer"] == "y"
    assert call.args["forecast"]["shares"][0]["name"] == "all"
    assert call.args["reply"][0]["factor"] == 4.0
    code, out, _ = hmas("untell", "1")
    assert code == 0
    loop.short(64.0)
    assert told(ledger)[0].changes[0].note == "taken back"
    code, out, err = hmas("untell", "1")
    assert (code, "it is over" in err) == (1, True)
    assert "nothing is in force by words" in hmas("told")[1]
    assert "taken back" in hmas("told", "--all")[1]


@pytest.mark.parametrize("typed", ["n\n", "\n", "what\n"])
def test_without_a_yes_nothing_is_applied(hmas, engine, ledger, loop, typed):
    code, _, err = hmas("tell", "expect 4x traffic from a", typed=typed)
    assert (code, "nothing was changed: declined" in err) == (1, True)
    assert told(ledger)[0].changes == ()
    assert tells(ledger)[0].accepted is False


def test_a_terminal_that_closes_leaves_it_waiting_for_whoever_goes_on(hmas, engine, ledger, loop):
    code, _, err = hmas("tell", "expect 4x traffic from a")
    assert (code, "hmas tell --go-on 1" in err) == (1, True)
    assert told(ledger)[0].state == "waiting"
    assert "go on with: hmas tell --go-on 1" in hmas("told")[1]
    code, out, _ = hmas("tell", "--go-on", "1", typed="y\n")
    assert "understood   expect   a   4x requests" in out
    assert told(ledger)[0].state == "approved"
    with sqlite3.connect(told_path(ledger)) as file:  # what is settled needs no checkpoint
        assert file.execute("SELECT count(*) FROM checkpoints").fetchone() == (0,)
    code, _, err = hmas("tell", "--go-on", "1", typed="y\n")
    assert (code, "does not wait for an answer: it is approved" in err) == (2, True)


def test_a_crash_in_the_middle_of_the_preview_loses_nothing(
    hmas, engine, ledger, loop, monkeypatch
):
    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dialogue, "foresee", crash)
        assert hmas("tell", "expect 4x traffic from a")[0] == 130
    assert told(ledger)[0].state == "waiting"
    _, out, _ = hmas("tell", "--go-on", "1", typed="y\n")
    assert "attainment   now -> then" in out
    assert told(ledger)[0].state == "approved"


def test_unclear_words_lead_to_one_question(hmas, engine, ledger, loop):
    code, out, _ = hmas("tell", "make it better", typed="expect 4x traffic from a\nn\n")
    assert "asks back    Whom is it about" in out
    assert "understood   expect   a   4x requests" in out
    code, out, err = hmas("tell", "make it better", typed="still better\n")
    assert (code, out.count("asks back")) == (1, 1)
    assert "nothing was changed: unclear" in err
    assert [each.state for each in told(ledger)] == ["declined", "unclear"]
    code, _, err = hmas("tell", "make it better", "--yes")
    assert (code, "not clear" in err) == (1, True)


def test_the_same_in_other_words_before_it_is_approved(hmas, engine, ledger, loop):
    _, out, _ = hmas("tell", "expect 4x traffic from a", typed="edit\nexpect 2x from a\ny\n")
    assert out.count("apply?") == 2
    (told_,) = told(ledger)
    assert (told_.text, told_.changes[0].change.factor) == ("expect 2x from a", 2.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [("shed half of a", "single tenants cannot yet"),
     ("shed half of interactive", "only classes with `sheddable = true`"),
     ("floor of interactive 20%", "SLO classes have none yet"),
     ("protect acme's interactive", "not of one class of one tenant")],
)  # fmt: skip
def test_what_cannot_act_yet_is_refused_and_not_pretended(hmas, engine, ledger, loop, text, why):
    code, out, err = hmas("tell", text, typed="y\n")
    assert (code, why in err, "apply?" in out) == (1, True, False)
    assert told(ledger)[0].state == "refused"
    assert tells(ledger)[0].args["problems"]


def test_yes_stands_for_a_person_only_where_that_is_safe(hmas, engine, ledger, loop, monkeypatch):
    def yes(text):
        code, _, err = hmas("tell", text, "--yes")
        return err if code else "done"

    assert "its confidence is 0.77" in yes("expect 4x traffic from a")
    monkeypatch.setattr(dialogue, "Grammar", Sure)
    assert "it sheds requests" in yes("shed half of bulk")
    assert "it lowers a floor" in yes("floor 10% for acme")
    assert {each.state for each in told(ledger)} == {"waiting"}
    exact = '[{"kind": "floor", "tenant": "acme", "share": 0.4}]'
    hmas("tell", exact, "--yes")
    assert told(ledger)[-1].state == "approved"
    engine.now_s = 5000.0
    assert "there is no preview" in yes("floor 50% for acme")


def test_a_model_reads_where_an_endpoint_is_named(hmas, engine, ledger, loop):
    change = {"kind": "expect", "tenant": "a", "slo_class": None, "amount": 4, "from": None,
              "until": None, "for_min": None}  # fmt: skip
    with serving(completion(json.dumps({"changes": [change], "question": ""})), 500) as model:
        tell = ("tell", "many more from a: 4x", "--model-url", model.url)
        _, out, _ = hmas(*tell, typed="n\n")
        assert "understood   expect   a   4x requests" in out
        assert tells(ledger)[0].args["reader"] == "model"
        code, out, _ = hmas(*tell, typed="\n")
    assert (code, "asks back    The reader failed" in out) == (1, True)


def test_json_shows_and_approves_nothing_by_itself(hmas, engine, ledger, loop):
    code, out, _ = hmas("tell", "expect 4x traffic from a", "--json")
    said = json.loads(out)
    assert (code, said["state"], said["told"]) == (0, "waiting", 1)
    assert said["changes"] == [{"kind": "expect", "tenant": "a", "factor": 4.0}]
    assert {each["name"] for each in said["forecast"]["shares"]} == {"all", "a", "others"}
    assert said["understood"] == [["expect", "a", "4x requests", "until it is taken back"]]
    assert said["waits_for"] == "approval"
    assert json.loads(hmas("told", "--json")[1])[0]["state"] == "waiting"


def test_a_weight_says_so_where_nothing_looks_at_it(hmas, engine, ledger):
    loop = looking(engine, ledger, control__start_policy="edf", control__start_rules=())
    _, out, _ = hmas("tell", "weight of acme 3", typed="n\n")
    assert "edf as it is set does not look at weights, nor does a rule: sjf, edf, density," in out
    loop.loop.close()


def test_a_floor_and_a_weight_come_into_force(hmas, engine, ledger, loop):
    _, out, _ = hmas("tell", "floor 20% for a; weight of acme 3", typed="y\n")
    assert "look at weights" not in out
    loop.short(62.0)
    assert engine.contract().contract.tenants["a"].floor == 0.2
    assert engine.contract().contract.tenants["acme"].weight == 3.0


def test_a_launch_is_expected_and_a_class_can_wait(hmas, engine, ledger, loop):
    text = "acme launches at 14:00, expect three times their chats; bulk can wait until 6pm"
    _, out, _ = hmas("tell", text, typed="y\n")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:7] == ["understood", "expect", "acme", "3x", "requests", "from", "14:00"]
    assert lines[1][:6] == ["weight", "class", "bulk", "0.3x", "until", "18:00"]
    assert any(line[:3] == ["all", "by", "weight"] for line in lines)
    loop.short(62.0)
    assert engine.contract().contract.classes["bulk"] == ClassTerms(sheddable=True, weight=0.3)
    hmas("untell", "1")
    loop.short(64.0)
    assert engine.contract().contract == CONTRACT


def test_without_a_token_or_a_controller_nobody_is_fooled(hmas, engine, ledger, tmp_path):
    code, out, _ = hmas("tell", "expect 4x traffic from a", typed="y\n")
    assert "preview      none: " in out
    assert code == 1
    (tmp_path / "var" / "hmas.token").unlink()
    assert hmas("tell", "expect 4x traffic from a")[0] == 2


@pytest.mark.parametrize(
    ("said", "times"),
    [({}, (100.0, None)),
     ({"for_min": 2}, (100.0, 220.0)),
     ({"until": "00:03"}, (100.0, 180.0)),
     ({"from": "00:02", "until": "00:03"}, (120.0, 180.0)),
     ({"from": "00:00", "for_min": 1}, (86_400.0, 86_460.0))],
)  # fmt: skip
def test_what_begins_now_begins_when_it_is_approved(said, times):
    change = Change(kind="expect", factor=2.0, **said)
    assert window(change, told_s=70.0, approved_s=100.0) == times


def test_hostile_and_clumsy_words_do_no_harm(hmas, engine, ledger, loop, monkeypatch):
    """No crash, and nothing comes into force that nobody has said yes to."""
    monkeypatch.setattr(dialogue, "foresee", lambda *_: {"why_not": "no time"})
    for text in [*HOSTILE, *fuzzed(400)]:
        for options in (["--json"], ["--yes"]):
            code, out, err = hmas("tell", *options, "--", text)
            assert code in {0, 1, 2}, (text, err)
            assert "internal error" not in err, (text, err)
            shown = err if options == ["--json"] else out + err
            assert all(letter.isprintable() or letter == "\n" for letter in shown), text
            if code == 0:
                assert json.loads(out)["state"] == "waiting"
    loop.short(62.0)
    assert engine.contract().epoch == 0
    assert engine.limits.shed == 0.0
    assert [each for each in told(ledger) if each.changes] == []
    with sqlite3.connect(told_path(ledger)) as file:
        assert file.execute("SELECT count(*) FROM changes").fetchone() == (0,)


def test_only_the_owner_may_read_what_was_told(hmas, engine, ledger, loop):
    hmas("tell", "expect 4x traffic from a", "--json")
    assert told_path(ledger).stat().st_mode & 0o777 == 0o600
    told_path(ledger).chmod(0o666)
    code, _, err = hmas("tell", "expect 4x traffic from a", "--json")
    assert (code, "others may write it" in err) == (2, True)


class Unsure(Grammar):
    """Reads as the grammar does, and is not sure enough."""

    def read(self, text, now, names):
        return Reading(super().read(text, now, names).reply, 0.3)


@pytest.mark.parametrize("agreed", ["yes\n", "Y\n"])
def test_a_guess_that_is_meant_needs_a_yes_and_then_the_approval(
    hmas, engine, ledger, loop, monkeypatch, agreed
):
    monkeypatch.setattr(dialogue, "Grammar", Unsure)
    code, out, _ = hmas("tell", "expect 4x traffic from a until 02:00", typed=f"{agreed}n\n")
    guess = "Do you mean expect a 4x requests until 02:00? Say yes, or say it in other words."
    assert f"asks back    {guess}" in out
    assert "understood   expect   a   4x requests   until 02:00" in out
    (told_,) = told(ledger)
    assert told_.text == "expect 4x traffic from a until 02:00"
    assert (code, told_.state) == (1, "declined")


def test_a_guess_that_is_not_meant_is_said_in_other_words(hmas, ledger, loop, monkeypatch):
    monkeypatch.setattr(dialogue, "Grammar", Unsure)
    code, out, _ = hmas("tell", "expect 4x traffic from a", typed="no\n")
    assert (code, "understood" in out) == (1, False)
    (told_,) = told(ledger)
    assert (told_.text, told_.state) == ("no", "unclear")

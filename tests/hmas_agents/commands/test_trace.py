"""`hmas trace` tells what the ledger holds."""

import json
import sqlite3
from typing import Any

import pytest

from hmas_agents.config import Config
from hmas_agents.forms import read_clock
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.ledger.schema import ADDED_IN_2
from hmas_agents.records import Proposal, ToolCall
from tests.hmas_agents.samples import outcome, record


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "var" / "ledger.sqlite"
    ledger = Ledger(path, label="demo", config=Config())
    ledger.record_decision(record(horizon="short", chosen={}, tool_calls=[], trigger="start"))
    ledger.set_realised(ledger.record_decision(record()), 0.83, 240)
    ledger.record_outcomes([outcome(1, 1.0)])
    ledger.close()
    return path


def test_list_is_one_line_per_decision(hmas, path):
    code, out, _ = hmas("trace", "list")
    assert code == 0
    assert "run 1  demo, advise mode  2 decisions, 1 requests" in out
    assert "keep edf" in out
    assert "edf > slide" in out
    assert "81.0%" in out
    assert "83.0%" in out


def test_list_filters(hmas, path):
    def listed(*argv):
        return [row["id"] for row in json.loads(hmas("trace", "list", "--json", *argv)[1])]

    assert listed() == [1, 2]
    assert listed("--horizon", "long") == [2]
    assert listed("--limit", "1") == [2]
    assert listed("--policy", "slide") == [2]
    assert listed("--run", "1") == [1, 2]
    assert hmas("trace", "list", "--horizon", "medium")[0] == 2


@pytest.fixture
def busy(tmp_path):
    """Decisions at 100, 200, ... seconds: a start, a quiet one, an alarm, advice, a rollback."""
    path = tmp_path / "busy.sqlite"
    ledger = Ledger(path, config=Config())
    call = record().tool_calls[0]
    advice = ToolCall(call.tool, call.args, accepted=False, reason="advise mode: not applied")
    refused = ToolCall(call.tool, call.args, accepted=False, reason="a newer epoch is in force")
    calm: dict[str, Any] = {"chosen": {}, "faults": []}
    for at_s, changes in enumerate(
        (
            {"trigger": "start", "horizon": "short", **calm},
            {"trigger": "tick", "tool_calls": [], **calm},
            {"trigger": "rate_up,mix", "chosen": {"policy": "slide", "applied": True}},
            {"trigger": "tick", "tool_calls": [refused], **calm},
            {"trigger": "rollback", "chosen": {"policy": "edf", "applied": True}, "faults": []},
            {"trigger": "tick", "mode": "advise", "tool_calls": [advice], **calm},
        ),
        start=1,
    ):
        ledger.record_decision(record(at_s=100.0 * at_s, **changes))
    ledger.close()
    return path


@pytest.mark.parametrize(
    ("argv", "ids"),
    [
        ((), [1, 2, 3, 4, 5, 6]),
        (("--trigger", "tick"), [2, 4, 6]),
        (("--trigger", "mix"), [3]),
        (("--trigger", "rate"), []),
        (("--changed",), [1, 3, 5, 6]),
        (("--faults",), [3]),
        (("--since", "300"), [3, 4, 5, 6]),
        (("--until", "300"), [1, 2, 3]),
        (("--since", "250", "--until", "450"), [3, 4]),
        (("--since", "150s"), [5, 6]),
        (("--since", "2.5m"), [5, 6]),
        (("--changed", "--until", "450", "--limit", "1"), [3]),
    ],
)
def test_list_narrows_down(hmas, busy, argv, ids):
    code, out, _ = hmas("trace", "list", "--json", "--ledger", busy, *argv)
    assert code == 0
    assert [row["id"] for row in json.loads(out)] == ids


def test_a_time_is_a_date_seconds_or_so_long_ago():
    assert read_clock("2026-11-22T14:05", None) == 1_795_356_300.0
    assert read_clock("2026-11-22T14:05+01:00", None) == 1_795_352_700.0
    assert read_clock("12.5", 100.0) == 12.5
    assert read_clock("2h", 10_000.0) == 2800.0
    with pytest.raises(ValueError, match="'yesterday' is no time: write 15m"):
        read_clock("yesterday", 1.0)


def test_a_list_fits_on_100_columns(hmas, path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = hmas("trace", "list")
    lines = out.splitlines()
    assert len(lines) == 4  # the run, the heads of the columns, and two decisions
    assert max(map(len, lines)) <= 100
    assert "edf > slide" in lines[3]
    assert "83.0%" in lines[3]
    assert "…" not in out


def test_a_decision_is_one_line_on_80_columns(hmas, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    start = ToolCall("switch_policy", {"policy": "edf", "params": {"kappa": 3.0}}, True, "")
    rules = [rule_call(name) for name in ("slack", "serial", "triage")]
    chosen = {"policy": "edf", "switch_policy": {"policy": "edf", "params": {"kappa": 3.0}}}
    for changes in (
        {"trigger": "start", "horizon": "short", "chosen": chosen, "policy_before": "fcfs",
         "snapshot_before": {"policy": "fcfs"}, "tool_calls": [start, *rules]},
        {"trigger": "rate_up,mix,lengths"},
        {"tool_calls": [budget_call(reason="x" * 200, accepted=False)]},
    ):  # fmt: skip
        ledger.record_decision(record(**changes))
    ledger.close()
    monkeypatch.setenv("COLUMNS", "80")
    lines = hmas("trace", "list", "--ledger", tmp_path / "l.sqlite")[1].splitlines()
    assert len(lines) == 5  # the run, the heads of the columns, and three decisions
    assert max(map(len, lines)) <= 80
    assert "short start  fcfs > edf:kappa=3 +slack +serial +" in lines[2]
    assert "long rate_u… edf > slide:kappa=40  " in lines[3]
    assert "81.0%" in lines[3]


def rule_call(rule, on=True, reason="advise mode: not applied"):
    return ToolCall("switch_rule", {"rule": rule, "on": on, "reason": "start"}, False, reason)


def budget_call(accepted=True, reason=""):
    before = {"epoch": 1, "token_budget": 2048, "follow_slack": False}
    after = {"epoch": 2, "token_budget": 512, "follow_slack": True}
    args = {"max_tokens": 512, "follow_slack": True, "reason": "TPOT"}
    return ToolCall("set_token_budget", args, accepted, reason, before, after)


@pytest.mark.parametrize(
    ("calls", "told"),
    [
        ([rule_call("slack"), rule_call("serial"), rule_call("triage")], "+slack +serial +triage"),
        ([rule_call("pace", on=False)], "-pace"),
        ([rule_call("pace", reason="dwell")], "+pace refused"),
        ([budget_call()], "+slack, token_budget 2048 > 512"),
        ([budget_call(accepted=False, reason="dwell")], "token_budget 512 refused"),
    ],
)
def test_changes_are_written_as_a_person_would_ask_for_them(hmas, tmp_path, calls, told):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    ledger.record_decision(
        record(horizon="short", chosen={"policy": "edf"}, tool_calls=calls, predicted=None)
    )
    ledger.close()
    assert f" {told} " in hmas("trace", "list", "--ledger", tmp_path / "l.sqlite")[1]


def test_an_empty_list_says_so(hmas, path):
    code, out, _ = hmas("trace", "list", "--trigger", "mix")
    assert code == 0
    assert "no decision fits" in out


def test_a_list_leaves_out_the_situations_and_one_decision_holds_its_own(hmas, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    ledger.record_decision(record(situation={"span_s": 9.0}))
    ledger.close()
    listed = hmas("trace", "list", "--json", "--ledger", tmp_path / "l.sqlite")[1]
    shown = hmas("trace", "show", "1", "--json", "--ledger", tmp_path / "l.sqlite")[1]
    assert "situation" not in json.loads(listed)[0]
    assert json.loads(shown)["situation"] == {"span_s": 9.0}


@pytest.mark.parametrize("which", ["2", "last"])
def test_show_tells_the_whole_story_in_order(hmas, path, which):
    code, out, _ = hmas("trace", "show", which)
    assert code == 0
    story = [
        "Decision 2 (run 1, demo)",
        "long horizon, act mode, trigger tick",
        "What was seen",
        "alarms: rate_up",
        "load: 1.3",
        "What was asked",
        f"prompt policy v1, sha256 {'ab' * 32}",
        "model smollm2, answered after 0.80 s, 612 tokens",
        "| Load: overload.",
        "What was answered",
        'raw: {"proposals": [{"policy": "slide"}]}',
        "model_timeout: no reply within 20 s",
        "What was checked",
        "model: slide:kappa=40  predicted 81.0% against 54.0% of edf  guardrails: allowed"
        "  confidence 0.7  (overload)",
        "incumbent: edf",
        "What was done",
        "because: predicted 81.0% against 54.0%",
        "epoch 3 -> 4",
        "Tool call: switch_policy",
        "accepted",
        "policy: edf -> slide",
        "engine acknowledged: accepted=True, epoch=4",
        "What came of it",
        "predicted attainment of the next window: 81.0%",
        "realised: 83.0% over 240 requests",
    ]
    position = 0
    for words in story:
        position = out.find(words, position)
        assert position >= 0, f"{words!r} is missing or out of order in\n{out}"


def shown(hmas, tmp_path, *argv, **changes):
    path = tmp_path / "one.sqlite"
    path.unlink(missing_ok=True)
    ledger = Ledger(path, config=Config())
    ledger.record_decision(record(**changes))
    ledger.close()
    return hmas("trace", "show", "1", "--ledger", path, *argv)[1]


def test_what_the_twin_expected_is_told_with_its_interval_and_its_margin(hmas, tmp_path):
    slide = Proposal(
        "model", "slide", predicted=0.81, verdict="ok", interval=(0.75, 0.87), gain=0.27,
        margin=0.07,
        terms={"against": 0.56, "futures": 16, "risk": 0.02, "caution": 3.5},
    )  # fmt: skip
    # Level with what is in force on the futures that both saw, and so tried no further.
    level = Proposal(
        "twin", "density", predicted=0.925, verdict="ok", gain=0.0, margin=1.0,
        terms={"against": 0.925, "futures": 2, "risk": 0.0, "caution": 3.5},
        reason="tried beside what was proposed",
    )  # fmt: skip
    untried = Proposal("twin", "srpt", verdict="allow-list: 'srpt' is not allowed")
    old = Proposal("rules", "edf", {"kappa": 3.0}, predicted=0.6, gain=0.06, margin=0.05)
    out = shown(
        hmas,
        tmp_path,
        proposals=[
            slide,
            level,
            untried,
            old,
            Proposal("incumbent", "edf", predicted=0.54, interval=(0.5, 0.6)),
        ],
        twin={"horizon_s": 60.0, "candidates": 8, "wall_s": 3.5},
    )
    assert "model: slide  predicted 81.0% [75.0%, 87.0%] against 56.0% of edf" in out
    assert (
        "guardrails: allowed  lead +27.0 points on 16 futures, must exceed +7.0 points: "
        "3.5 times the 2.00 that it risks"
    ) in out
    assert (
        "twin: density  predicted 92.5% against 92.5% of edf  guardrails: allowed  "
        "lead +0.0 points on 2 futures: not tried on all  (tried beside what was proposed)"
    ) in out
    assert "twin: srpt  not predicted  guardrails: allow-list: 'srpt' is not allowed\n" in out
    assert "lead +6.0 points, must exceed +5.0 points\n" in out
    assert "verdict" not in out
    assert "incumbent: edf  predicted 54.0% [50.0%, 60.0%]" in out
    assert "the twin: horizon_s=60, candidates=8, wall_s=3.5" in out


@pytest.mark.parametrize(
    ("realised", "words"),
    [(0.80, ", within the interval"), (0.7, ", below the interval"), (0.9, ", above the interval")],
)
def test_what_came_of_it_is_held_against_the_interval(hmas, tmp_path, realised, words):
    out = shown(
        hmas, tmp_path, predicted_low=0.75, predicted_high=0.87, realised=realised,
        realised_requests=99,
    )  # fmt: skip
    assert "predicted attainment of the next window: 81.0% [75.0%, 87.0%]" in out
    assert f"realised: {realised:.1%} over 99 requests{words}" in out


def test_the_controllers_own_requests_are_told_apart_where_there_were_any(hmas, tmp_path):
    assert "own_" not in shown(hmas, tmp_path, state={"policy": "edf", "own_arrivals": 0})
    state = {"policy": "edf", "own_arrivals": 3, "own_attainment": 0.5}
    assert "own_arrivals: 3\n  own_attainment: 0.5\n" in shown(hmas, tmp_path, state=state)


def test_the_prompt_as_sent_is_shown_when_asked_for(hmas, tmp_path):
    changes = {
        "messages": [{"role": "system", "content": "Choose."}, {"role": "user", "content": "Now?"}],
        "model_prompt_tokens": 600, "model_step_share": 0.02,
    }  # fmt: skip
    out = shown(hmas, tmp_path, "--prompt", **changes)
    assert out.index("system, as sent:") < out.index("> Choose.") < out.index("user, as sent:")
    assert "612 tokens (600 prompt, 12 reply), 2.0% of the engine's step time" in out
    assert "as sent" not in shown(hmas, tmp_path, **changes)


def test_a_switch_that_was_taken_back_says_by_what(hmas, busy):
    assert "rolled back by decision 5" in hmas("trace", "show", "3", "--ledger", busy)[1]
    for other in "1", "2", "4", "5", "6":
        assert "rolled back" not in hmas("trace", "show", other, "--ledger", busy)[1]


def test_a_ledger_of_the_first_schema_is_still_read(hmas, path):
    with sqlite3.connect(path) as old:
        for line in ADDED_IN_2.strip().splitlines():
            old.execute(f"ALTER TABLE decisions DROP COLUMN {line.split()[5]}")
        old.execute("PRAGMA user_version = 1")
    old.close()
    assert "edf > slide" in hmas("trace", "list", "--changed")[1]
    code, out, _ = hmas("trace", "show", "2", "--prompt")
    assert code == 0
    assert "the prompt as sent was not recorded" in out
    assert "realised: 83.0% over 240 requests" in out


def test_show_says_what_is_not_known(hmas, path):
    _, out, _ = hmas("trace", "show", "1")
    assert "realised: not known yet" in out
    _, out, _ = hmas("trace", "show", "last", "--horizon", "short")
    assert "Decision 1" in out


def test_markup_in_a_reply_is_shown_as_it_is(hmas, tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    ledger.record_decision(record(raw_replies=["[bold]x[/nonsense]"]))
    ledger.close()
    code, out, _ = hmas("trace", "show", "1", "--ledger", tmp_path / "l.sqlite")
    assert code == 0
    assert "raw: [bold]x[/nonsense]" in out


def test_show_json_and_export_are_json(hmas, path, tmp_path):
    assert json.loads(hmas("trace", "show", "2", "--json")[1])["policy"] == "slide"
    lines = hmas("trace", "export")[1].splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [
        "run",
        "decision",
        "decision",
        "outcome",
    ]
    code, out, _ = hmas("trace", "export", "--out", tmp_path / "run.jsonl")
    assert (code, out) == (0, f"{tmp_path / 'run.jsonl'}: 4 lines\n")
    assert (tmp_path / "run.jsonl").read_text().splitlines() == lines


def test_decisions_are_exported_as_cases(hmas, path, tmp_path, monkeypatch):
    asked = []

    def export_cases(reader, run, target):
        assert isinstance(reader, LedgerReader)
        asked.append((run, target))
        return 7

    monkeypatch.setattr("hmas_agents.cases.export_cases", export_cases)
    target = tmp_path / "cases.jsonl"
    code, out, _ = hmas("trace", "export", "--run", "1", "--cases", target)
    assert (code, out) == (0, f"{target}: 7 cases, without labels\n")
    assert asked == [(1, target)]
    code, _, err = hmas("trace", "export", "--cases", target, "--out", target)
    assert code == 2
    assert "leave --out away" in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("list", "--since", "soon"), "'soon' is no time"),
        (("show", "42"), "there is no decision 42"),
        (("show", "first"), "neither an id nor"),
        (("show", "last", "--run", "9"), "there is no run 9; there are 1"),
        (("list", "--run", "-1"), "there is no run -1; there are 1"),
        (("export", "--run", "77"), "there is no run 77; there are 1"),
        (("list", "--run", str(2**63)), "9223372036854775808 is too large"),
        (("list", "--limit", str(2**64)), "18446744073709551616 is too large"),
        (("show", str(2**64)), "there is no decision 18446744073709551616"),
        (("list", "--ledger", "."), ".: is a folder; name the ledger in it"),
        (("export", "--out", "."), ". is a folder: name a file"),
        (("export", "--out", "none/run.jsonl"), "there is no folder none"),
        (("show", "last", "--nope"), "No such option: --nope (hmas trace show --help says more)"),
        (("list", "--limits", "3"), "did you mean --limit?"),
        (("list", "--ledger", "none.sqlite"), "none.sqlite: no ledger there"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hmas, path, argv, words):
    code, _, err = hmas("trace", *argv)
    assert code == 2
    assert words in err
    assert err.startswith(f"hmas trace {argv[0]}: ")
    assert "internal error" not in err

"""`hmas trace` tells what the ledger holds."""

import json

import pytest

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger
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
    assert "run 1  demo  2 decisions, 1 requests" in out
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
    assert listed("--run", "7") == []
    assert hmas("trace", "list", "--horizon", "medium")[0] == 2


@pytest.mark.parametrize("which", ["2", "last"])
def test_show_tells_the_whole_story_in_order(hmas, path, which):
    code, out, _ = hmas("trace", "show", which)
    assert code == 0
    story = [
        "Decision 2 (run 1)",
        "long horizon, act mode, trigger tick",
        "load: 1.3",
        "alarms: rate_up",
        f"prompt policy v1, sha256 {'ab' * 32}",
        "model smollm2",
        "| Load: overload.",
        "after 0.80 s, 612 tokens",
        'raw: {"proposals": [{"policy": "slide"}]}',
        "model_timeout: no reply within 20 s",
        "model: slide kappa=20  predicted 81.0%  verdict: ok  confidence 0.7  (overload)",
        "incumbent: edf",
        "because: predicted 81.0% against 54.0%",
        "Tool call: switch_policy",
        "accepted",
        "policy: edf -> slide",
        "engine acknowledged: accepted=True, epoch=4",
        "epoch 3 -> 4",
        "predicted attainment of the next window: 81.0%",
        "realised: 83.0% over 240 requests",
    ]
    position = 0
    for words in story:
        position = out.find(words, position)
        assert position >= 0, f"{words!r} is missing or out of order in\n{out}"


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


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("show", "42"), "there is no decision 42"),
        (("show", "first"), "neither an id nor"),
        (("show", "last", "--run", "9"), "no such decision yet"),
        (("list", "--ledger", "none.sqlite"), "none.sqlite: no ledger there"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(hmas, path, argv, words):
    code, _, err = hmas("trace", *argv)
    assert code == 2
    assert words in err

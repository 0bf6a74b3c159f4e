"""`hmas why` explains one request of a run."""

import json
import re
from dataclasses import replace

import pytest

from hmas_agents.config import Config
from hmas_agents.explain.counterfactual import Agreement, Counterfactual, Replay
from hmas_agents.explain.explanation import explain
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.ledger.requests import pick_request
from serving.contracts import encode
from tests.hmas_agents.samples import outcome, record, snapshot
from tests.hmas_agents.simulated_ledger import LABEL, make_ledger


@pytest.fixture(scope="module", params=["act", "advise"])
def simulated(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "ledger.sqlite"
    make_ledger(path, request.param)
    return path, request.param


@pytest.fixture
def small(tmp_path):
    """One missed, one met and one aborted request, and one decision, all written by hand."""
    path = tmp_path / "var" / "ledger.sqlite"
    ledger = Ledger(path, label="by hand", config=Config())
    seen = encode(snapshot(0.0))
    ledger.record_decision(record(at_s=0.0, snapshot_before=seen, snapshot_after=seen))
    late = outcome(
        1, 10.0, 9.0, queue_s=5.0, ttft_s=6.0, met=False, miss="ttft_queue",
        deprioritised=(("parked", 0.2),),
    )  # fmt: skip
    ledger.record_outcomes(
        [
            replace(late, request_id="cmpl-abc-0-1"),
            outcome(2, 11.0, request_id="cmpl-abd-0-2", tenant="[bold]globex[/x]"),
            replace(
                late, seq=3, request_id="left", queue_s=None, ttft_s=None, tpot_s=None,
                finish="aborted", miss="not_served", output_tokens=0,
            ),
        ]
    )  # fmt: skip
    ledger.close()
    return path


def test_the_story_of_a_missed_request_has_all_its_chapters_in_order(hmas, simulated):
    path, mode = simulated
    code, out, _ = hmas("why", "--pick", "worst", "--ledger", path)
    assert code == 0
    chapters = [
        f"(run 1, {LABEL}, {mode} mode)",
        "MISSED: first token",
        "Its timeline",
        "arrived", "admitted", "first token", "ended", "per token",
        "What was in force",
        "What was decided meanwhile",
        "What it waited for",
        "in the batch when it came", "ahead of it", "overtook it", "it overtook",
        "Would another policy have met its SLO?",
        "(as measured)", "as it was", "edf", "slide",
        "The twin says:",
        "How well the replay as it was agrees",
    ]  # fmt: skip
    place = 0
    for words in chapters:
        place = out.find(words, place)
        assert place >= 0, f"{words!r} is missing or out of order in\n{out}"


def test_advice_that_was_not_applied_is_told_as_such(hmas, simulated):
    path, mode = simulated
    _, out, _ = hmas("why", "--pick", "worst", "--no-twin", "--ledger", path)
    assert ("would: " in out) == (mode == "advise")
    assert ("epoch 3" in out) == (mode == "act")


def test_json_holds_everything_and_nothing_else_is_printed(hmas, simulated):
    path, _ = simulated
    with LedgerReader(path) as reader:
        found = pick_request(reader, "worst")
    assert found is not None
    worst = found.outcome
    code, out, _ = hmas("why", worst.request_id, "--json", "--policy", "sjf", "--ledger", path)
    told = json.loads(out)
    assert code == 0
    assert told["outcome"] == json.loads(json.dumps(encode(worst)))
    names = [m["name"] for m in told["moments"] if m["name"] != "put off"]
    assert names == ["arrived", "admitted", "first token", "ended"]
    assert next(t["met"] for t in told["targets"]) is False
    assert set(told["company"]) == {"running", "ahead", "overtaken_by", "overtook"}
    assert told["lived_under"][0]["limits"]["max_active_requests"] == 32
    assert [r["policy"] for r in told["twin"]["replays"]][1:] == ["sjf"]
    assert told["twin"]["agreement"]["same_verdict"] > 0.9


def test_a_met_request_says_how_much_time_there_was(hmas, small):
    _, out, _ = hmas("why", "abd", "--no-twin")
    assert "MET its SLO" in out
    assert "promised 500.0 ms: 300.0 ms to spare" in out
    assert "[bold]globex[/x]" in out
    assert "The twin says" not in out


def test_a_missed_one_says_by_how_much(hmas, small):
    _, out, _ = hmas("why", "cmpl-abc", "--no-twin")
    assert re.search(r"first token 6.000 s, promised within 500.0 ms: 5.500 s too late", out)
    assert "12.0 times the target" in out
    assert re.search(r"put off +\+ +200.0 ms  not all could be in time", out)
    assert "in the queue" in out


def test_one_that_was_never_served_is_explained_too(hmas, small):
    code, out, _ = hmas("why", "left", "--no-twin")
    assert code == 0
    assert "aborted 9.000 s after it came" in out
    assert "was never admitted" in out
    assert "promised within 500.0 ms" in out


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("nobody",), 2, "no request 'nobody'"),
        (("nobody",), 2, "hmas trace export"),
        (("nobody",), 2, "keeps the newest 500,000"),
        (("abc", "--run", "7"), 2, "there is no run 7; there are 1"),
        (("--pick", "missed", "--run", "99"), 2, "there is no run 99; there are 1"),
        (("--pick", "met", "--tenant", "acme"), 2, "no request of tenant 'acme' met its SLO"),
        (("ab",), 2, "the beginning of 2 requests"),
        ((), 2, "id or --pick, one of the two"),
        (("abc", "--pick", "met"), 2, "id or --pick, one of the two"),
        (("abc", "--tenant", "acme"), 2, "--tenant goes with --pick"),
        (("abc", "--policy", "magic"), 2, "'magic' does not exist"),
        (("abc", "--policy", "edf:beta=1"), 2, "policy 'edf' has no parameter 'beta'"),
        (("abc", "--ledger", "none.sqlite"), 2, "no ledger there"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(hmas, small, argv, code, words):
    left, _, err = hmas("why", *argv)
    assert left == code
    assert words in " ".join(err.replace("│", " ").split())


def twin_that_says(met, same_for_it, same_verdict):
    def one(policy, is_met, others_met, as_it_was=False):
        return Replay(policy, as_it_was, is_met, "", 1.0, 1.2, 0.02, 3.0, others_met, 40)

    agreement = Agreement(6.0, 5.0, same_for_it, same_verdict, 0.5, 10, 12, 41)
    replays = (one("fcfs", False, 10, as_it_was=True), one("sjf", False, 9), one("edf", met, 7))
    return Counterfactual(replays, agreement, 60.0, "made up", ())


@pytest.mark.parametrize(
    ("said", "words", "absent"),
    [
        ((True, True, 0.95), "The twin says: edf would have met it; under edf 3 fewer", "CAUTION"),
        ((False, True, 0.95), "The twin says: no, none of the 2 others would", "CAUTION"),
        (
            (True, False, 0.95),
            "CAUTION: replayed as it was, the twin gets this very request",
            "no,",
        ),
        ((True, True, 0.75), "CAUTION: the twin is a rough guide here", "no,"),
    ],
)
def test_the_answer_says_at_whose_expense_and_how_far_to_believe_it(
    hmas, small, monkeypatch, said, words, absent
):
    def explain_so(*args, **options):
        told = explain(*args, **{**options, "with_twin": False})
        return replace(told, twin=twin_that_says(*said))

    monkeypatch.setattr("hmas_agents.commands.why.explain", explain_so)
    _, out, _ = hmas("why", "abc")
    assert words in out
    assert absent not in out
    assert f"the same verdict on {said[2]:.1%} of 41 requests" in out

"""What a timeline is made of: bins, spans of policies, marks, alarms."""

import dataclasses

import pytest

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger
from hmas_agents.records import ToolCall
from hmas_agents.ui.decision_view import judge_prediction
from hmas_agents.ui.ledgers import Ledgers
from hmas_agents.ui.outcome_bins import MAX_TENANTS, bin_width_s
from hmas_agents.ui.timeline import build_timeline, summarise_run
from tests.hmas_agents.samples import outcome, record
from tests.hmas_agents.ui.written_ledger import START_S, keep, limit, short, switch


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite", config=Config())
    yield ledger
    ledger.close()


@pytest.fixture
def timeline(ledger):
    ledgers = Ledgers([ledger.path])

    def build(width_s=None):
        with ledgers.read_run("0-1") as (_, data):
            return build_timeline(data, width_s)

    return build


def at(*offsets_s, first=0, **changes):
    return [
        outcome(first + i, START_S + offset_s, **changes) for i, offset_s in enumerate(offsets_s)
    ]


def test_outcomes_fall_into_the_bin_of_their_arrival(ledger, timeline):
    ledger.record_outcomes(at(0, 1, 11, 29.9) + at(12, first=10, met=False, tenant="globex"))
    overall, acme, globex = timeline(10)["series"]
    assert (overall["kind"], overall["offered"], overall["met"]) == (
        "overall",
        [2, 2, 1],
        [2, 1, 1],
    )
    assert (acme["name"], acme["offered"]) == ("acme", [2, 1, 1])
    assert (globex["name"], globex["offered"], globex["met"]) == ("globex", [0, 1, 0], [0, 0, 0])


def test_the_controllers_own_requests_are_told_apart(ledger):
    ledger.record_outcomes(at(0, 1) + at(2, 3, 4, first=2, met=False, tenant="hmas"))
    with Ledgers([ledger.path]).read_run("0-1") as (run, data):
        told = summarise_run("0-1", run, data)
        series = build_timeline(data)["series"]
    assert (told["offered"], told["attainment"], told["worst_tenant"]) == (2, 1.0, 1.0)
    assert (told["own_requests"], told["own_met"]) == (3, 0)
    assert told["misses"] == {}
    assert [line["name"] for line in series] == ["overall", "acme"]


def test_later_outcomes_are_added_and_none_counts_twice(ledger, timeline):
    ledger.record_outcomes(at(0, 1))
    timeline(10)
    ledger.record_outcomes(at(0, 1) + at(5, first=2))
    assert timeline(10)["series"][0]["offered"] == [3]


def test_the_smallest_tenants_are_one_line(ledger, timeline):
    for number in range(MAX_TENANTS + 3):
        rows = at(*range(1 + number), first=100 * number, tenant=f"t{number}")
        ledger.record_outcomes(rows)
    series = timeline(60)["series"]
    assert [s["kind"] for s in series] == ["overall", *["tenant"] * MAX_TENANTS, "others"]
    assert series[1]["name"] == f"t{MAX_TENANTS + 2}"
    assert (series[-1]["name"], series[-1]["offered"]) == ("3 others", [1 + 2 + 3])


def test_a_tenant_called_overall_is_a_tenant(ledger, timeline):
    ledger.record_outcomes(at(0, tenant="overall") + at(1, first=5))
    assert [(s["kind"], s["name"]) for s in timeline(10)["series"]] == [
        ("overall", "overall"), ("tenant", "acme"), ("tenant", "overall"),
    ]  # fmt: skip


def test_attainment_is_provisional_where_requests_may_still_be_inside(ledger, timeline):
    ledger.record_outcomes(at(0, 10, 20, 30, after_s=8.0))
    assert timeline()["provisional_from_s"] == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("span_s", "requests", "lines", "wanted_s", "width_s"),
    [
        (10, 10_000, 3, None, 2),
        (300, 10_000, 3, None, 5),
        (3600, 10**6, 3, None, 60),
        (86_400, 10**6, 3, None, 1800),
        (10**9, 10**6, 3, None, 86_400),
        (300, 1200, 5, None, 10),  # fewer requests, wider bins
        (300, 100, 5, None, 30),  # but still a line
        (300, 0, 0, None, 5),
        (300, 100, 5, 2, 2),  # as asked for
        (86_400, 10**6, 3, 1, 60),  # as far as possible
    ],
)
def test_bins_are_round_and_neither_too_many_nor_too_thin(
    span_s, requests, lines, wanted_s, width_s
):
    assert bin_width_s(span_s, requests, lines, wanted_s) == width_s


def test_policies_are_spans_with_their_epochs(ledger, timeline):
    ledger.record_decision(short(0, 0, switch("fcfs", "edf", 0, True), "act"))
    ledger.record_decision(short(10, 1, limit("edf", 2048, 1024, 1, True), "act"))
    ledger.record_decision(short(30, 2, switch("edf", "slide", 2, True), "act"))
    ledger.record_decision(keep(60, 3, "act", "slide"))
    found = timeline()
    assert [(s["policy"], s["from_s"], s["to_s"]) for s in found["policies"]] == [
        ("edf", 0, 30), ("slide", 30, 60),
    ]  # fmt: skip
    assert [(s["first_epoch"], s["last_epoch"]) for s in found["policies"]] == [(1, 2), (3, 3)]
    assert found["epochs"] == [
        {"at_s": 0, "epoch": 1}, {"at_s": 10, "epoch": 2}, {"at_s": 30, "epoch": 3},
    ]  # fmt: skip


def test_a_policy_that_no_decision_brought_is_marked(ledger, timeline):
    ledger.record_decision(keep(0, 3, "act", "edf"))
    ledger.record_decision(keep(60, 4, "act", "fcfs"))
    (mark,) = timeline()["marks"]
    assert (mark["kind"], mark["at_s"], mark["decision"]) == ("outside", 60, 2)
    assert mark["texts"] == ["edf > fcfs, not by a decision of this run"]


def test_only_limit_changes_that_cannot_be_told_apart_are_merged(ledger, timeline):
    for i in range(4):
        ledger.record_decision(short(i, i, limit("edf", 2048 - i, 2047 - i, i, True), "act"))
    for i in range(4, 6):
        ledger.record_decision(short(i, i, switch("edf", f"p{i}", i, True), "act"))
    ledger.record_decision(keep(3000, 9, "act", "p5"))
    kinds = [(mark["kind"], len(mark["texts"])) for mark in timeline()["marks"]]
    assert kinds == [("limits", 4), ("switch", 1), ("outside", 1), ("switch", 1)]


def test_a_refusal_is_told_with_its_reason(ledger, timeline):
    call = dataclasses.replace(switch("edf", "slide", 1, False), reason="another controller")
    ledger.record_decision(short(0, 1, call, "act"))
    (mark,) = timeline()["marks"]
    assert (mark["kind"], mark["texts"]) == (
        "refused", ["slide refused: another controller"],
    )  # fmt: skip


def test_an_alarm_stands_until_a_decision_no_longer_sees_it(ledger, timeline):
    for at_s, alarms in ((0, ()), (60, ("rate_up",)), (120, ("rate_up", "mix")), (180, ("mix",))):
        ledger.record_decision(keep(at_s, 1, "act", "edf", alarms=alarms))
    assert [(a["name"], a["from_s"], a["to_s"]) for a in timeline()["alarms"]] == [
        ("rate_up", 60, 180), ("mix", 120, 180),
    ]  # fmt: skip


def words(at_s, tool, args, accepted=True):
    """A row of what somebody told, or of what a controller made of it."""
    call = ToolCall(tool, args, accepted, "")
    return record(horizon="short", at_s=START_S + at_s, trigger=tool, tool_calls=[call])


def test_what_was_told_stands_from_its_beginning_to_its_end(ledger, timeline):
    shed, surge = "shed class bulk 30% refused from 14:00", "expect acme 3x requests from 14:00"
    for at_s, told, text in (
        (0, 1, f"ahead: {shed}"), (60, 1, f"in force: {shed}"), (90, 2, f"in force: {surge}"),
        (120, 3, f"not applied: {shed}"), (150, 1, f"ended: {shed}"),
    ):  # fmt: skip
        ledger.record_decision(words(at_s, "told", {"told": told, "changes": [text]}))
    ledger.record_decision(words(200, "tell", {"told": 2, "text": "acme launches", "changes": []}))
    first, second = timeline()["words"]
    assert first == {
        "told": 1, "change": shed, "text": "", "from_s": 60, "to_s": 150, "decision": 2,
    }  # fmt: skip
    assert second["text"] == "acme launches"
    assert (second["from_s"], second["to_s"]) == (90, 200), "in force to the end of the run"


def test_what_came_of_a_decision_is_taken_in_when_it_is_known(ledger):
    ledgers = Ledgers([ledger.path])
    number = ledger.record_decision(keep(0, 1, "act", "edf", predicted=0.7))
    with ledgers.read_run("0-1") as (_, data):
        before = data.stamp
    ledger.set_realised(number, 0.6, 50)
    with ledgers.read_run("0-1") as (_, data):
        assert data.rows[0].realised == 0.6
        assert data.stamp != before


def test_an_empty_run_has_a_timeline(timeline, ledger):
    found = timeline()
    assert found["series"][0]["offered"] == [0]
    assert found["policies"] == found["marks"] == found["alarms"] == found["words"] == []


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((0.8, 0.7, 0.9, 0.75), "inside the predicted interval 70.0% to 90.0%"),
        ((0.8, 0.7, 0.9, 0.65), "below"),
        ((0.8, 0.7, 0.9, 0.95), "above"),
        ((0.8, None, None, 0.75), "-5.0% from the prediction"),
        ((None, None, None, 0.75), "nothing was predicted"),
        ((0.8, 0.7, 0.9, None), "not known yet"),
    ],
)
def test_the_verdict_says_how_the_prediction_did(figures, words):
    assert words in judge_prediction(*figures)

"""The twin serves a stretch of a real run again, and says how well that works."""

from dataclasses import replace
from typing import Any

import pytest

from hmas_agents.config import Config
from hmas_agents.explain.counterfactual import Replay, replay_policies
from hmas_agents.explain.explanation import explain
from hmas_agents.explain.phases import Phase
from hmas_agents.explain.stretch import cut_stretch
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.ledger.requests import StoredOutcome, find_requests, pick_request
from serving.contracts import Limits, encode
from tests.hmas_agents.samples import outcome, record, snapshot
from tests.hmas_agents.simulated_ledger import PROFILE, REQUESTS, make_ledger


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "ledger.sqlite"
    make_ledger(path)
    return path


@pytest.fixture(scope="module")
def told(path) -> Any:
    with LedgerReader(path) as reader:
        return explain(reader, worst(reader))


def worst(reader) -> StoredOutcome:
    found = pick_request(reader, "worst")
    assert found is not None
    return found


def replays(told) -> list[Replay]:
    assert told.twin is not None
    return list(told.twin.replays)


def test_a_simulated_run_replayed_as_it_was_comes_out_the_same(told):
    """So that what is off about a live one is the twin's model of the machine, not the replay."""
    assert told.outcome.policy == "edf"  # it lived through a switch, which is replayed too
    was = told.twin.replays[0]
    assert was.as_it_was
    assert was.policy == "fcfs > edf"
    assert was.ttft_s == pytest.approx(told.outcome.ttft_s, abs=0.05)
    agreement = told.twin.agreement
    assert agreement.same_for_it
    assert agreement.requests > REQUESTS / 2
    assert agreement.same_verdict == 1.0
    assert agreement.ttft_error_s < 0.05
    assert agreement.real_met == agreement.twin_met


def test_every_policy_that_the_run_allowed_is_tried_once(told):
    assert [r.policy for r in told.twin.replays[1:]] == ["fcfs", "sjf", "edf", "slide"]
    assert {r.others for r in told.twin.replays} == {told.twin.agreement.requests - 1}


def test_another_order_would_have_met_what_first_come_first_served_missed(told):
    by_name = {r.policy: r for r in told.twin.replays}
    assert told.outcome.miss == "ttft_queue"
    assert not by_name["fcfs"].met
    assert by_name["edf"].met
    assert by_name["edf"].queue_s < told.outcome.queue_s / 2


def test_a_stretch_that_begins_in_the_middle_goes_on_from_the_requests_inside(path):
    with LedgerReader(path) as reader:
        found = worst(reader)
        told = explain(reader, found, lead_s=2.0, policies=["sjf"])
    was, _ = replays(told)
    assert told.twin is not None
    assert told.twin.lead_s == pytest.approx(2.0)
    # Where each was within its prefill is not recorded: close, not equal.
    assert was.ttft_s == pytest.approx(told.outcome.ttft_s, rel=0.1)
    assert told.twin.agreement.same_for_it


def test_a_policy_that_was_in_force_throughout_is_not_replayed_twice(path):
    with LedgerReader(path) as reader:
        told = explain(reader, find_requests(reader, "r3")[0], policies=["fcfs", "edf"])
    assert told.lived_under[-1].policy == "fcfs"
    assert [(r.policy, r.as_it_was) for r in replays(told)] == [("fcfs", True), ("edf", False)]


def test_a_policy_is_replayed_with_the_parameters_that_its_name_has(path):
    with LedgerReader(path) as reader:
        found = worst(reader)
        told = explain(reader, found, policies=["sjf:kappa=0", "sjf:kappa=100"])
    _, none, much = replays(told)
    assert [none.policy, much.policy] == ["sjf:kappa=0", "sjf:kappa=100"]
    assert (none.ttft_s, none.others_met) != (much.ttft_s, much.others_met)


def test_without_decisions_near_it_the_twin_is_not_asked_and_says_why(path):
    with LedgerReader(path) as reader:
        found = worst(reader)
        before_all = replace(found.outcome, arrival_s=-500.0, finished_s=-480.0)
        told = explain(reader, replace(found, outcome=before_all))
    assert told.twin is None
    assert any("no decision near it" in note for note in told.notes)


def test_a_refused_request_is_explained_without_the_twin(path):
    with LedgerReader(path) as reader:
        found = worst(reader)
        refused = replace(found.outcome, finish="rejected", queue_s=None, ttft_s=None)
        told = explain(reader, replace(found, outcome=refused))
    assert told.twin is None
    assert any("rejected before it reached the queue" in note for note in told.notes)


def test_a_verdict_that_the_twin_gets_wrong_is_owned_up_to():
    """Measured on a machine that was far slower than the twin believes."""
    slow = [
        outcome(i, float(i), 9.0, queue_s=5.0, ttft_s=6.0, met=False, miss="ttft_queue")
        for i in range(5)
    ]
    phase = Phase(0.0, None, 1, "fcfs", {}, Limits(32, 2048))
    stretch = cut_stretch(slow[2], slow, 10.0)
    said = replay_policies(stretch, PROFILE, [phase], ["priority"], lambda *_: None)
    assert not said.agreement.same_for_it
    assert said.agreement.same_verdict == 0.0
    assert said.agreement.ttft_error_s == pytest.approx(6.0, abs=1.0)
    assert any("priorities" in note for note in said.notes)


def test_a_request_from_before_the_first_decision_is_judged_by_what_that_one_saw(tmp_path):
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    seen = encode(snapshot(12.0, policy="sjf"))
    ledger.record_decision(record(at_s=12.0, snapshot_before=seen, snapshot_after=seen))
    ledger.record_outcomes([outcome(1, 10.0, 1.5)])
    ledger.close()
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        told = explain(reader, find_requests(reader, "r1")[0], policies=["fcfs"])
    assert [phase.policy for phase in told.lived_under] == ["sjf"]
    assert [r.policy for r in replays(told)] == ["sjf", "fcfs"]

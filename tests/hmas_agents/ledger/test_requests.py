"""One request among many is found by id, by its beginning, or by how it went."""

import pytest

from hmas_agents.config import Config
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.ledger.requests import find_requests, outcomes_between, pick_request
from serving.contracts import SLO
from tests.hmas_agents.samples import outcome


@pytest.fixture
def reader(tmp_path):
    path = tmp_path / "l.sqlite"
    first = Ledger(path, config=Config())
    first.record_outcomes(
        [
            outcome(1, 10.0, 5.0, request_id="cmpl-abc-0-1a2b", met=False, ttft_s=0.9),
            outcome(2, 11.0, 1.0, request_id="chatcmpl-abd", tenant="globex"),
            outcome(3, 12.0, 9.0, request_id="r1", met=False, ttft_s=4.0, tenant="globex"),
            outcome(4, 13.0, 1.0, request_id="r12", met=False, tpot_s=0.031),
        ]
    )
    first.close()
    second = Ledger(path, config=Config())
    second.record_outcomes([outcome(1, 20.0, request_id="r1", met=False, slo=SLO(e2e_ms=100))])
    second.close()
    with LedgerReader(path) as opened:
        yield opened


def found(reader, text, run=None):
    return [(s.run_id, s.outcome.request_id) for s in find_requests(reader, text, run)]


def test_an_exact_id_wins_over_beginnings_and_the_newest_run_comes_first(reader):
    assert found(reader, "r1") == [(2, "r1"), (1, "r1")]
    assert found(reader, "r1", run=1) == [(1, "r1")]


def test_the_client_s_id_is_found_in_what_the_server_makes_of_it(reader):
    assert found(reader, "abc") == [(1, "cmpl-abc-0-1a2b")]
    assert found(reader, "ab") == [(1, "chatcmpl-abd"), (1, "cmpl-abc-0-1a2b")]
    assert found(reader, "cmpl-abc") == [(1, "cmpl-abc-0-1a2b")]
    assert found(reader, "bc") == []
    assert found(reader, "abc", run=2) == []
    assert found(reader, "%") == []


def test_the_answers_of_one_request_are_found_by_its_id(tmp_path):
    """With n > 1 vLLM makes a request of each answer (its `ParentRequest.get_child_info`)."""
    answers = [f"{number}_cmpl-abc-0-1a2b" for number in range(12)]
    ledger = Ledger(tmp_path / "l.sqlite", config=Config())
    names = [*answers, "0_cmpl-xyz"]
    ledger.record_outcomes([outcome(i, 10.0, request_id=name) for i, name in enumerate(names)])
    ledger.close()
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        for text in ("abc", "cmpl-abc", "cmpl-abc-0-1a2b"):
            assert {name for _, name in found(reader, text)} == set(answers)
        assert found(reader, answers[3]) == [(1, answers[3])]
        assert found(reader, "0_cmpl-x") == [(1, "0_cmpl-xyz")]


def picked(reader, which, run=None, tenant=None):
    stored = pick_request(reader, which, run, tenant)
    return stored and (stored.run_id, stored.outcome.request_id)


def test_a_request_is_picked_by_how_it_went(reader):
    assert picked(reader, "missed") == (2, "r1")
    assert picked(reader, "missed", run=1) == (1, "r12")
    assert picked(reader, "met") == (1, "chatcmpl-abd")
    assert picked(reader, "met", run=2) is None
    assert picked(reader, "missed", tenant="globex") == (1, "r1")
    # 2 s against 100 ms is 20 times the target; 4 s against 500 ms is 8 times.
    assert picked(reader, "worst") == (2, "r1")
    assert picked(reader, "worst", run=1) == (1, "r1")


def test_those_inside_at_some_time_come_in_order_of_arrival(reader):
    def ids(since_s, until_s):
        return [o.request_id for o in outcomes_between(reader, 1, since_s, until_s)]

    assert ids(0.0, 99.0) == ["cmpl-abc-0-1a2b", "chatcmpl-abd", "r1", "r12"]
    assert ids(14.5, 99.0) == ["cmpl-abc-0-1a2b", "r1"]
    assert ids(0.0, 11.5) == ["cmpl-abc-0-1a2b", "chatcmpl-abd"]

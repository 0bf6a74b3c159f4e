"""Does a controller steer several ranks as one, and can they not drift apart unseen?"""

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from serving.contracts import Contract, ContractChange, ContractInForce
from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable
from serving.engines.ranks import in_step
from serving.plugin import routes
from tests.serving.samples import arrival, decision, outcome, shares
from tests.serving.served_ranks import TOKEN, EngineClient, live_engine
from tools.session import ControlSession


@pytest.fixture
def ranks() -> EngineClient:
    return EngineClient(ranks=2)


@pytest.fixture
def engine(ranks, monkeypatch) -> Iterator[LiveEngine]:
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    monkeypatch.setattr(routes, "REGISTRY", CollectorRegistry())
    with live_engine(ranks) as engine:
        yield engine


def policies(ranks: EngineClient) -> list[str]:
    return [hook.engine.policy for hook in ranks.hooks]


def test_a_decision_reaches_every_rank_and_its_end_too(engine, ranks):
    assert engine.apply(decision(1, "edf")).accepted
    assert policies(ranks) == ["edf", "edf"]
    shot = engine.snapshot()
    assert [(rank.rank, rank.epoch) for rank in shot.ranks] == [(0, 1), (1, 1)]
    assert in_step(shot)
    assert engine.renew("me", 5.0).accepted
    assert engine.release("me").accepted
    assert policies(ranks) == ["fcfs", "fcfs"]


def test_the_kill_switch_reaches_every_rank_whoever_holds_the_lease(engine, ranks):
    assert engine.apply(decision(1, "edf")).accepted
    assert engine.stop("alice@desk", "odd latencies").accepted
    assert policies(ranks) == ["fcfs", "fcfs"]
    stopped = engine.snapshot().stopped
    assert stopped is not None
    assert (stopped.by, stopped.reason) == ("alice@desk", "odd latencies")
    refused = engine.apply(decision(engine.snapshot().epoch + 1, "edf"))
    assert refused.reason == "every rank refused: stopped by alice@desk"
    session = ControlSession(engine, "me", 10.0, dry_run=False)
    assert not session.change("edf").accepted
    assert engine.start("alice@desk").accepted
    assert engine.snapshot().stopped is None
    assert session.change("edf").accepted


def test_a_rank_alone_that_is_stopped_shows(engine, ranks):
    ranks.hooks[1].engine.stop("alice@desk", "")
    assert engine.snapshot().stopped == ranks.hooks[1].engine.stopped


def test_a_rank_that_refuses_is_named_shown_and_healed_by_the_next_decision(engine, ranks):
    assert engine.apply(decision(1, "edf")).accepted
    ranks.hooks[1].engine.epoch = 5  # it has seen what the other has not
    ack = engine.apply(decision(2, "slide"))
    assert not ack.accepted
    assert "rank 1 refused: epoch 2 is not after 5" in ack.reason
    assert "accepted by rank 0" in ack.reason
    shot = engine.snapshot()
    assert not in_step(shot)
    assert [rank.policy for rank in shot.ranks] == policies(ranks) == ["slide", "edf"]
    renewed = engine.renew("me", 10.0)
    assert not renewed.accepted, "two decisions are not renewed as if they were one"
    assert "rank 0 at 2, rank 1 at 5" in renewed.reason
    assert engine.apply(decision(shot.epoch + 1, "slide")).accepted
    assert policies(ranks) == ["slide", "slide"]
    assert in_step(engine.snapshot())


def test_a_controllers_next_renewal_brings_ranks_together_by_itself(engine, ranks):
    session = ControlSession(engine, "me", 10.0, dry_run=False)
    assert session.change("edf").accepted
    ranks.hooks[1].engine.epoch = 7
    for end in (ranks.hooks[1].engine.stop, ranks.hooks[1].engine.start):
        end("someone")  # so its lease ended early
    assert policies(ranks) == ["edf", "fcfs"]
    assert session.renew().accepted
    assert policies(ranks) == ["edf", "edf"]
    assert in_step(engine.snapshot())


def test_a_decision_half_refused_is_taken_back_by_the_controllers_next_renewal(engine, ranks):
    """What was refused is not what the controller wants in force."""
    session = ControlSession(engine, "me", 10.0, dry_run=False)
    assert session.change("edf").accepted
    seen = engine.snapshot()
    ranks.hooks[1].engine.epoch = 5
    assert not session.change("slide", seen=seen).accepted
    assert policies(ranks) == ["slide", "edf"]
    assert session.renew().accepted
    assert policies(ranks) == ["edf", "edf"]


def test_another_controller_on_one_rank_is_seen_and_not_overruled(engine, ranks):
    assert ranks.hooks[1].engine.apply(decision(3, "sjf", controller_id="you")).accepted
    assert engine.snapshot().controller_id == "you"
    ack = engine.apply(decision(4, "edf"))
    assert not ack.accepted
    assert "rank 1 refused: owned by you" in ack.reason
    assert policies(ranks) == ["edf", "sjf"]
    ranks.hooks[1].engine.now_s = 1000.0  # the other one's lease is over
    assert engine.apply(decision(engine.snapshot().epoch + 1, "edf")).accepted
    assert policies(ranks) == ["edf", "edf"]


def test_the_journal_of_all_ranks_is_read_page_by_page(engine, ranks):
    head = engine.snapshot().journal_head
    ranks.hooks[0].note(*(arrival(i) for i in range(7)))
    ranks.hooks[1].note(*(outcome(i) for i in range(4)))
    page = engine.journal(0, limit=8)
    rest = engine.journal(page.cursor, limit=8)
    assert [len(p.arrivals) + len(p.outcomes) for p in (page, rest)] == [8, 3]
    assert len(page.arrivals + rest.arrivals) == 7
    assert len(page.outcomes + rest.outcomes) == 4
    assert rest.cursor == engine.snapshot().journal_head > head


def test_a_cursor_of_an_earlier_connection_still_holds(engine, ranks):
    ranks.hooks[0].note(arrival(0), arrival(1))
    cursor = engine.journal(0).cursor
    ranks.hooks[0].note(arrival(2))
    with live_engine(ranks) as later:
        assert [event.seq for event in later.journal(cursor).arrivals] == [2]


def test_two_cores_that_call_themselves_the_same_rank_are_refused(engine, ranks):
    ranks.hooks[1].parallel_config.data_parallel_index = 0
    with pytest.raises(EngineUnavailable, match=r"2 engine cores answered as ranks \[0\]"):
        engine.renew("me", 1.0)


def test_a_contract_reaches_every_rank_or_the_answer_names_those_that_refused(engine, ranks):
    first = engine.apply_contract(ContractChange(shares({"acme": 2.0}), 1, "me"))
    assert (first.accepted, first.epoch_before, first.epoch) == (True, 0, 1)
    assert first.changes == ("tenants.acme: new", "tenants.acme.weight: 1 -> 2")
    assert [hook.engine.held_contract.epoch for hook in ranks.hooks] == [1, 1]
    ranks.hooks[1].engine.held_contract = ContractInForce(5, Contract(), by="another")
    assert not in_step(engine.snapshot())
    assert engine.contract().by == "another", "the newest"
    ack = engine.apply_contract(ContractChange(shares({"acme": 3.0}), 2, "me"))
    assert not ack.accepted
    assert ack.reason.startswith("rank 1 refused: epoch 2 is not above the present 5")
    assert ack.reason.endswith("accepted by rank 0: the next contract brings them together")
    last = engine.apply_contract(ContractChange(shares({"acme": 3.0}), 6, "me"))
    assert last.accepted
    assert last.changes == ("tenants.acme: new", "tenants.acme.weight: 1 -> 3"), "on rank 1"
    assert in_step(engine.snapshot())

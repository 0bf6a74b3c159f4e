"""Does one controller drive replicas that come and go, as if they were one engine?"""

import threading
from collections.abc import Iterator

import pytest

from serving.contracts import (
    SLO,
    Contract,
    ContractChange,
    ContractInForce,
    KVState,
    QueueState,
    ResidentRequest,
    Snapshot,
)
from serving.engines.protocol import EngineUnavailable
from serving.engines.ranks import in_step, rank_count
from serving.fleet.fleet_engine import FleetEngine
from tests.fakes import FakeEngine
from tests.serving.samples import decision, shares
from tools.session import ControlSession


class Members:
    """A discovery whose replicas the test adds and takes away."""

    def __init__(self, *names: str) -> None:
        self.now = {name: FakeEngine() for name in names}

    def __getitem__(self, name: str) -> FakeEngine:
        return self.now[name]

    def replicas(self) -> dict[str, FakeEngine]:
        return dict(self.now)

    def policies(self) -> dict[str, str]:
        return {name: engine.policy for name, engine in self.now.items()}

    def pass_time(self, seconds: float) -> None:
        for engine in self.now.values():
            engine.now_s += seconds


@pytest.fixture
def members() -> Members:
    return Members("a", "b", "c")


@pytest.fixture
def fleet(members) -> Iterator[FleetEngine]:
    engine = FleetEngine(members)
    yield engine
    engine.close()


@pytest.fixture
def session(fleet) -> ControlSession:
    return ControlSession(fleet, "me", 10.0, dry_run=False)


def tick(fleet: FleetEngine, session: ControlSession, members: Members) -> Snapshot:
    """What the control loop does every two seconds."""
    members.pass_time(2.0)
    seen = fleet.snapshot()
    session.renew()
    return seen


def test_a_decision_reaches_every_replica_and_its_end_too(fleet, members):
    assert fleet.apply(decision(1, "edf")).accepted
    assert set(members.policies().values()) == {"edf"}
    shot = fleet.snapshot()
    assert [(rank.replica, rank.epoch) for rank in shot.ranks] == [("a", 1), ("b", 1), ("c", 1)]
    assert in_step(shot)
    assert rank_count(shot) == 3
    assert fleet.renew("me", 5.0).accepted
    assert fleet.release("me").accepted
    assert set(members.policies().values()) == {"fcfs"}


def test_counts_are_the_fleets_and_the_rows_the_replicas(fleet, members):
    for waiting, engine in enumerate(members.now.values()):
        engine.queue = QueueState(waiting=waiting)
        engine.kv = KVState(total_blocks=10)
    shot = fleet.snapshot()
    assert (shot.queue.waiting, shot.kv.total_blocks) == (3, 30)
    assert [rank.queue.waiting for rank in shot.ranks] == [0, 1, 2]


def test_one_that_is_away_is_named_and_the_others_go_on(fleet, members):
    members["b"].down = True
    ack = fleet.apply(decision(1, "edf"))
    assert ack.accepted
    assert ack.reason == "replica b is away: fake engine is down"
    shot = fleet.snapshot()
    assert shot.away == {"b": "fake engine is down"}
    assert [rank.replica for rank in shot.ranks] == ["a", "c"]


def test_all_away_is_an_engine_that_is_not_available(fleet, members):
    for engine in members.now.values():
        engine.down = True
    with pytest.raises(EngineUnavailable, match="none of 3 replicas answers: replica a is away"):
        fleet.snapshot()
    members.now.clear()
    with pytest.raises(EngineUnavailable, match="no replicas"):
        fleet.apply(decision(1))


def test_one_that_joins_has_decision_and_contract_within_two_ticks(fleet, members, session):
    assert fleet.apply_contract(ContractChange(shares({"acme": 2.0}), 1, "me")).accepted
    assert session.change("edf").accepted
    tick(fleet, session, members)
    members.now["d"] = FakeEngine(now_s=members["a"].now_s)
    tick(fleet, session, members)
    shot = tick(fleet, session, members)
    assert members.policies() == dict.fromkeys("abcd", "edf")
    assert [engine.held_contract.epoch for engine in members.now.values()] == [1] * 4
    assert in_step(shot)


def test_one_that_was_killed_and_started_again_has_the_decision_too(fleet, members, session):
    session.change("edf")
    members["b"].down = True
    for _ in range(10):
        assert session.renew().accepted, "the others' leases hold"
        tick(fleet, session, members)
    members.now["b"] = FakeEngine(now_s=members["a"].now_s)
    tick(fleet, session, members)
    assert in_step(tick(fleet, session, members))
    assert members["b"].policy == "edf"


def test_one_that_was_out_of_reach_beyond_its_lease_comes_back_in_step(fleet, members, session):
    """Its own epoch has grown: only the next one, for all, is above it."""
    session.change("edf")
    members["b"].down = True
    for _ in range(10):
        tick(fleet, session, members)
    members["b"].down = False
    tick(fleet, session, members)
    assert in_step(tick(fleet, session, members))
    assert members.policies() == dict.fromkeys("abc", "edf")
    epoch = members["a"].epoch
    tick(fleet, session, members)
    assert members["a"].epoch == epoch, "and then it is over"


def test_one_that_missed_a_decision_but_kept_its_lease_gets_it(fleet, members, session):
    session.change("edf")
    members["b"].down = True
    session.change("slide")
    members["b"].down = False
    tick(fleet, session, members)
    assert members.policies() == dict.fromkeys("abc", "slide")


def test_an_engine_that_applied_nothing_writes_nothing(fleet, members):
    """`hmas status` and advice only look."""
    members["a"].apply(decision(3, "edf"))
    members["a"].held_contract = ContractInForce(2, Contract(), by="another")
    fleet.snapshot()
    assert members.policies() == {"a": "edf", "b": "fcfs", "c": "fcfs"}
    assert members["b"].held_contract.epoch == 0


def test_a_second_controller_on_one_replica_is_named_and_left_alone(fleet, members, session):
    assert members["b"].apply(decision(9, "sjf", controller_id="you")).accepted
    ack = session.change("edf")
    assert ack.accepted
    assert ack.reason == "replica b refused: owned by you"
    shot = tick(fleet, session, members)
    assert members.policies() == {"a": "edf", "b": "sjf", "c": "edf"}
    assert (shot.controller_id, shot.policy) == ("me", "edf")
    assert not in_step(shot)
    members["b"].release("you")
    for _ in range(2):
        tick(fleet, session, members)
    assert members.policies() == dict.fromkeys("abc", "edf")


def test_where_another_controller_holds_most_it_holds_the_fleet(fleet, members):
    for name in "ab":
        members[name].apply(decision(2, "sjf", controller_id="you"))
    assert fleet.snapshot().controller_id == "you"


def test_one_that_is_stopped_stops_the_fleet(fleet, members, session):
    session.change("edf")
    members["b"].stop("alice@desk", "odd latencies")
    shot = tick(fleet, session, members)
    assert shot.stopped == members["b"].stopped
    assert members["b"].policy == "fcfs"


def test_a_contract_that_one_refuses_is_in_force_nowhere(fleet, members):
    members["b"].held_contract = ContractInForce(5, Contract(), by="another")
    ack = fleet.apply_contract(ContractChange(shares({"acme": 2.0}), 2, "me"))
    assert not ack.accepted
    assert ack.reason.startswith("replica b refused: epoch 2 is not above the present 5")
    assert [engine.held_contract.epoch for engine in members.now.values()] == [0, 5, 0]
    assert fleet.contract().by == "another", "the newest"


def test_a_slow_replica_costs_the_others_its_time_limit_once(members):
    """Then it is asked in the background until it answers; nothing here waits for a clock."""
    gate = threading.Event()

    class Slow(FakeEngine):
        def snapshot(self) -> Snapshot:
            gate.wait(60)
            return super().snapshot()

    members.now["b"] = Slow()
    fleet = FleetEngine(members, limit_s=0.05)
    shot = fleet.snapshot()
    assert shot.away == {"b": "no answer within 0.05 s"}
    assert fleet.apply(decision(1, "edf")).accepted
    assert set(fleet.snapshot().away) == {"b"}
    gate.set()
    while fleet.snapshot().away:
        pass
    fleet.snapshot()
    assert members.policies() == dict.fromkeys("abc", "edf")
    fleet.close()


def test_residents_are_those_of_the_most_loaded_that_answers(fleet, members):
    for name, seconds in (("a", 1.0), ("b", 3.0), ("c", 2.0)):
        members[name].queue = QueueState(waiting=1, queued_prefill_s=seconds)
        members[name].held = (ResidentRequest(name, 0.0, "acme", "batch", SLO(), 1, 1),)
    fleet.snapshot()
    assert fleet.inside().replica == "b"
    members["b"].down = True
    page = fleet.inside()
    assert (page.replica, page.requests[0].request_id) == ("c", "c")

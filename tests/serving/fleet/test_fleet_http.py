"""Does a fleet of real control routes do what one of engines in memory does? No socket."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from serving.contracts import ContractChange
from serving.engines.live import LiveEngine
from serving.engines.ranks import in_step, rank_count
from serving.fleet.fleet_engine import FleetEngine
from serving.plugin import routes
from tests.serving.samples import arrival, decision, outcome, shares
from tests.serving.served_ranks import TOKEN, EngineClient, live_engine
from tools.session import ControlSession


class Servers:
    """Two API servers; the second has two ranks."""

    def __init__(self, stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stack, self._patch = stack, monkeypatch
        self.cores: dict[str, EngineClient] = {}
        self.engines: dict[str, LiveEngine] = {}
        self.start("a", ranks=1)
        self.start("b", ranks=2)

    def start(self, name: str, ranks: int) -> None:
        self._patch.setattr(routes, "REGISTRY", CollectorRegistry())  # each process has its own
        self.cores[name] = EngineClient(ranks)
        self.engines[name] = self._stack.enter_context(live_engine(self.cores[name]))

    def replicas(self) -> dict[str, LiveEngine]:
        return dict(self.engines)

    def policies(self) -> list[str]:
        return [hook.engine.policy for core in self.cores.values() for hook in core.hooks]


@pytest.fixture
def servers(monkeypatch) -> Iterator[Servers]:
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    with ExitStack() as stack:
        yield Servers(stack, monkeypatch)


def test_a_server_that_dies_and_comes_back_is_named_and_then_in_step(servers):
    fleet = FleetEngine(servers)
    session = ControlSession(fleet, "me", 10.0, dry_run=False)
    assert fleet.apply_contract(ContractChange(shares({"acme": 2.0}), 1, "me")).accepted
    assert session.change("edf").accepted
    shot = fleet.snapshot()
    assert (rank_count(shot), in_step(shot)) == (3, True)
    assert [(rank.replica, rank.rank) for rank in shot.ranks] == [("a", 0), ("b", 0), ("b", 1)]

    servers.cores["b"].down = True
    shot = fleet.snapshot()
    assert set(shot.away) == {"b"}
    assert session.renew().accepted

    servers.start("b", ranks=2)
    for _ in range(2):
        shot = fleet.snapshot()
        session.renew()
    assert servers.policies() == ["edf"] * 3
    assert in_step(fleet.snapshot())
    assert {rank.contract_epoch for rank in fleet.snapshot().ranks} == {1}
    fleet.close()


def test_journals_of_servers_with_ranks_are_read_as_one_by_name(servers):
    fleet = FleetEngine(servers)
    head = fleet.snapshot().journal_head
    servers.cores["a"].hooks[0].note(arrival(0), outcome(0))
    for hook in servers.cores["b"].hooks:
        hook.note(*(arrival(n) for n in range(3)))
    fleet.snapshot()
    first = fleet.journal(head, limit=5)
    rest = fleet.journal(first.cursor, limit=5)
    names = [e.replica for page in (first, rest) for e in page.arrivals]
    names += [e.replica for page in (first, rest) for e in page.outcomes]
    assert sorted(names) == ["a"] * 2 + ["b"] * 6
    fleet.close()


def test_the_kill_switch_reaches_all_and_says_whom_it_did_not_reach(servers):
    fleet = FleetEngine(servers)
    assert fleet.apply(decision(1, "edf")).accepted
    servers.cores["b"].down = True
    ack = fleet.stop("alice@desk", "odd latencies")
    assert not ack.accepted
    assert "replica b is away" in ack.reason
    assert "(it is not stopped)" in ack.reason
    assert servers.policies() == ["fcfs", "edf", "edf"]
    servers.cores["b"].down = False
    assert fleet.stop("alice@desk").accepted
    assert servers.policies() == ["fcfs"] * 3
    assert fleet.start("alice@desk").accepted
    fleet.close()

"""Does a fleet keep the promises of the Engine protocol as one engine does? In virtual time.

The same tests run on one compiled engine and on fleets of one, two and three of them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from serving.contracts import ContractChange, CostCoefficients, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from serving.engines.protocol import Engine
from serving.fleet.fleet_engine import FleetEngine
from serving.fleet.replicas import FixedReplicas
from tests.serving.samples import decision, shares

COST = CostCoefficients(0.01, 1e-4, 1e-4)
PROFILE = EngineProfile("small", "of this test", COST, 8, 512, 500)
SENT = tuple(TraceRequest(0.2 * n, 200 + 37 * n, 20, "acme", "batch") for n in range(12))


@dataclass(frozen=True, slots=True)
class Case:
    """What a controller sees, and the engines behind it."""

    engine: Engine
    parts: Sequence[CompiledEngine]

    def serve(self, until_s: float | None = None) -> list[int]:
        """Each part serves the same requests; how many events each has then."""
        for part in self.parts:
            part.run(SENT, until_s=until_s)
        return [part.snapshot().journal_head for part in self.parts]


@pytest.fixture(params=[0, 1, 2, 3], ids=["one engine", "fleet of 1", "of 2", "of 3"])
def case(request):
    parts = [CompiledEngine(PROFILE, EngineSettings()) for _ in range(max(1, request.param))]
    if request.param == 0:
        yield Case(parts[0], parts)
        return
    fleet = FleetEngine(FixedReplicas({f"r{n}": part for n, part in enumerate(parts)}))
    yield Case(fleet, parts)
    fleet.close()


def test_a_decision_is_in_force_until_it_is_released(case):
    before = case.engine.snapshot()
    assert case.engine.apply(decision(before.epoch + 1, "edf")).accepted
    held = case.engine.snapshot()
    assert (held.policy, held.epoch, held.controller_id) == ("edf", before.epoch + 1, "me")
    assert not case.engine.apply(decision(held.epoch, "srpt")).accepted, "no epoch twice"
    assert not case.engine.apply(decision(held.epoch + 1, controller_id="you")).accepted
    assert not case.engine.renew("you", 10.0).accepted
    assert case.engine.renew("me", 10.0).accepted
    assert case.engine.release("me").accepted
    after = case.engine.snapshot()
    assert (after.policy, after.controller_id) == (before.policy, "")
    assert after.epoch >= held.epoch


def test_a_lease_ends_by_itself(case):
    assert case.engine.apply(decision(1, "edf", ttl_s=0.5)).accepted
    case.serve()
    shot = case.engine.snapshot()
    assert (shot.policy, shot.controller_id) == ("fcfs", "")


def test_a_contract_is_taken_once_for_each_epoch(case):
    held = case.engine.contract()
    change = ContractChange(shares({"acme": 2.0}), held.epoch + 1, "me")
    assert case.engine.apply_contract(change).accepted
    assert case.engine.contract().contract.tenants["acme"].weight == 2.0
    assert case.engine.snapshot().contract_epoch == held.epoch + 1
    assert not case.engine.apply_contract(change).accepted


def test_the_journal_has_every_event_once_in_pages_of_any_size(case):
    head = case.engine.snapshot().journal_head
    sizes = case.serve()
    last = case.engine.snapshot().journal_head
    for limit in (1, 5, 1000):
        seen, cursor = Counter[tuple[str, str, str]](), head
        while True:
            page = case.engine.journal(cursor, limit)
            assert (page.cursor >= cursor, page.lost) == (True, 0)
            for event in (*page.arrivals, *page.outcomes):
                seen[(type(event).__name__, event.replica, event.request_id)] += 1
            cursor = page.cursor
            if len(page.arrivals) + len(page.outcomes) < limit:
                break
        assert cursor == last
        assert sum(seen.values()) == sum(sizes)
        assert set(seen.values()) == {1}


def test_counts_are_sums_and_residents_are_those_of_one(case):
    case.serve(until_s=1.1)
    shots = [part.snapshot() for part in case.parts]
    shot = case.engine.snapshot()
    inside = [s.queue.waiting + s.batch.running for s in shots]
    assert shot.queue.waiting + shot.batch.running == sum(inside) > 0
    assert shot.kv.total_blocks == sum(s.kv.total_blocks for s in shots)
    assert case.engine.now() == shots[0].now_s
    page = case.engine.inside()
    assert len(page.requests) == inside[0], "all parts are alike"
    assert len(case.engine.inside(limit=1).requests) == 1
    assert case.engine.inside(limit=1).left_out == inside[0] - 1

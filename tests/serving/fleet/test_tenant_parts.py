"""Does a live fleet divide tenants' terms by what its replicas say, at every look?"""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from serving.contracts import Contract, ContractChange, Snapshot, TenantCounters, TenantLoad
from serving.fleet.fleet_engine import FleetEngine
from serving.fleet.replicas import FixedReplicas
from serving.fleet.tenant_parts import TenantParts
from tests.fakes import FakeEngine
from tests.serving.samples import decision, shares

FLOOD = Contract()


def serves(engine: FakeEngine, **tenants: tuple[int, int]) -> None:
    """So many more requests of a tenant have begun (of 100 tokens), and so many wait now."""
    sofar = {row.tenant: row for row in engine.counters}
    for tenant, (begun, waiting) in tenants.items():
        row = sofar.get(tenant, TenantCounters(tenant, "interactive"))
        before = {one.tenant: one.waiting for one in engine.loads}.get(tenant, 0)
        sofar[tenant] = replace(
            row, received=row.received + begun + waiting - before,
            prompt_tokens=row.prompt_tokens + 100 * begun,
        )  # fmt: skip
    engine.counters = tuple(sofar.values())
    engine.loads = tuple(
        TenantLoad(name, waiting, waiting) for name, (_, waiting) in tenants.items()
    )


@pytest.fixture
def engines() -> dict[str, FakeEngine]:
    return {name: FakeEngine() for name in "abc"}


@pytest.fixture
def fleet(engines) -> Iterator[FleetEngine]:
    fleet = FleetEngine(FixedReplicas(engines))
    yield fleet
    fleet.close()


def looks(fleet: FleetEngine, engines: dict[str, FakeEngine], times: int = 8) -> None:
    """Ticks of a controller: `acme` floods `a`, and has on `b` what its share of all comes to."""
    for _ in range(times):
        if "a" in engines:
            serves(engines["a"], acme=(5, 900), globex=(5, 4))
        serves(engines["b"], acme=(20, 0), globex=(10, 0))
        fleet.snapshot()
        fleet.renew("me", 10.0)


def share(engine: FakeEngine, tenant: str) -> float:
    return engine.parts[tenant].share


def test_a_flood_gets_where_it_waits_what_its_share_of_the_fleet_leaves(fleet, engines):
    fleet.apply(decision(1))
    looks(fleet, engines)
    assert share(engines["a"], "acme") < 1.0 < share(engines["b"], "acme")
    assert share(engines["a"], "globex") > share(engines["a"], "acme"), "it waits behind the flood"
    for tenant in ("acme", "globex"):
        assert sum(share(one, tenant) for one in engines.values()) == pytest.approx(3.0)
        assert sum(one.parts[tenant].limits for one in engines.values()) == pytest.approx(1.0)
    assert engines["b"].parts["acme"].limits > engines["a"].parts["acme"].limits


def test_what_a_tenant_weighs_counts(fleet, engines):
    fleet.apply(decision(1))
    looks(fleet, engines)
    before = share(engines["a"], "acme")
    assert fleet.apply_contract(ContractChange(shares({"acme": 5.0}), 1, "me")).accepted
    looks(fleet, engines)
    assert share(engines["a"], "acme") > before, "the fleet owes it more than it gets elsewhere"


def test_nobody_is_told_a_part_by_an_engine_that_steers_nothing(fleet, engines):
    engines["a"].apply(decision(1))
    looks(fleet, engines)
    assert all(one.parts == {} for one in engines.values())


def test_parts_end_with_the_lease(fleet, engines):
    fleet.apply(decision(1))
    looks(fleet, engines)
    assert fleet.release("me").accepted
    assert all(one.parts == {} for one in engines.values())


def test_the_only_one_left_gives_the_whole(engines):
    discovery = dict(engines)

    class Members:
        def replicas(self) -> dict[str, FakeEngine]:
            return discovery

    fleet = FleetEngine(Members())
    fleet.apply(decision(1))
    looks(fleet, engines)
    assert engines["b"].parts
    del discovery["a"], discovery["c"]
    looks(fleet, discovery)
    assert engines["b"].parts == {}
    fleet.close()


def test_what_a_replica_did_before_it_was_met_or_started_anew_counts_for_nothing():
    def shot(begun: int, started_s: float) -> Snapshot:
        engine = FakeEngine(started_s=started_s)
        serves(engine, acme=(begun, 0))
        return engine.snapshot()

    parts = TenantParts()
    for begun in (100, 200):
        parts.look(FLOOD, {"a": shot(begun, 1.0), "b": shot(begun, 1.0)})
    # `b` was killed, and has done as much again: a look ago it had done nothing that is known.
    told = parts.look(FLOOD, {"a": shot(300, 1.0), "b": shot(900, 2.0)})
    assert told["a"]["acme"].limits > told["b"]["acme"].limits
    assert all(part.share >= 0.0 for one in told.values() for part in one.values())

"""Do tenants that clients invent take nothing from the real ones for good?

vLLM's real scheduler in virtual time. Without a gateway, who sends a request names its tenant.
"""

from collections import Counter

from serving.contracts import Contract, TenantTerms, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from tests.serving.samples import profile

MOST = 4


def flood(start_s: float, count: int = 100) -> list[TraceRequest]:
    """A request under each of `count` invented names, all at once."""
    return [TraceRequest(start_s, 40, 4, f"invented{i}", "batch") for i in range(count)]


def run(requests: list[TraceRequest], contract: Contract) -> SimulatedEngine:
    engine = SimulatedEngine(profile(), EngineSettings(max_tenants=MOST, contract=contract))
    outcomes = engine.run(sorted(requests, key=lambda request: request.arrival_s))
    assert {outcome.finish for outcome in outcomes} == {"stop"}
    assert engine.snapshot().policy_errors == 0, engine.snapshot().last_error
    return engine


def received(engine: SimulatedEngine) -> Counter[str]:
    counted: Counter[str] = Counter()
    for row in engine.snapshot().counters:
        assert row.received == row.finished
        counted[row.tenant] += row.received
    return counted


def test_after_a_flood_of_invented_names_a_real_tenant_has_its_own_lane_and_counts():
    """Before, the first names kept both for good, and acme was `other`."""
    acme = [TraceRequest(500.0 + i, 40, 4, "acme", "batch") for i in range(5)]
    engine = run([*flood(0.0), *acme], Contract())
    assert received(engine)["acme"] == 5
    assert sum(received(engine).values()) == 105, "each request is counted once"
    assert len(received(engine)) <= MOST + 1
    assert "acme" in {lane.tenant for lane in engine.scheduler.queue.lanes}
    shown: Counter[str] = Counter()
    for row in engine.scheduler.hmas_totals().histograms:
        if row.measure == "ttft_seconds":
            shown[row.tenant] += sum(row.counts)
    assert shown == received(engine)


def test_listed_tenants_take_no_room_from_the_others():
    tenants = {f"listed{i}": TenantTerms() for i in range(MOST)}
    names = [*tenants, *(f"free{i}" for i in range(MOST)), "late"]
    requests = [TraceRequest(0.001 * i, 40, 4, name, "batch") for i, name in enumerate(names)]
    engine = run(requests, Contract(tenants=tenants))
    assert received(engine) == Counter([*names[:-1], "other"])
    assert {lane.tenant for lane in engine.scheduler.queue.lanes} == set(received(engine))


def test_in_the_middle_of_a_flood_a_configured_tenant_has_its_own_lane_and_counts():
    acme = [TraceRequest(0.1, 40, 4, "acme", "batch")]
    contract = Contract(tenants={"acme": TenantTerms(weight=2.0)})
    engine = run([*flood(0.0), *acme, *flood(500.0)], contract)
    assert received(engine)["acme"] == 1
    assert "acme" in {lane.tenant for lane in engine.scheduler.queue.lanes}
    assert sum(received(engine).values()) == 201

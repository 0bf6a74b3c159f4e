"""Shedding: only sheddable classes, only while a live decision says so, and never uncounted."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import SLO, Arrival, Decision, Envelope, Limits, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.hook.lease import clamp
from serving.hook.shedding import OVERDUE_S, Shedding, is_in_vain
from serving.perception.attributes import sign_tenant
from serving.plugin.admission_gate import LAPSE_S, AdmissionGate
from tests.serving.api_server import BAD, OK, ApiServer
from tests.serving.samples import profile
from tests.serving.simulation import journal_of

CONTRACT = with_classes({}, ["batch"]).model_copy(update={"believe_clients": True})
SETTINGS = EngineSettings(contract=CONTRACT, retry_after_s=7)
REFUSED = httpx.codes.SERVICE_UNAVAILABLE


# -- who is refused ----------------------------------------------------------------------


@given(st.floats(0.01, 1.0), st.integers(1, 300))
def test_a_share_is_refused_evenly(share, count):
    shedding = Shedding(["batch"])
    refused = [shedding.refuses("batch", share) for _ in range(count)]
    for so_far in range(count + 1):
        assert abs(sum(refused[:so_far]) - share * so_far) < 1.001


@given(st.floats(0, 1))
def test_other_classes_are_never_refused(share):
    shedding = Shedding(["batch"])
    assert not any(shedding.refuses("interactive", share) for _ in range(20))
    assert not Shedding([]).refuses("batch", 1.0)


def test_the_whole_share_refuses_all_and_none_refuses_nobody():
    shedding = Shedding(["batch"])
    assert all(shedding.refuses("batch", 1.0) for _ in range(50))
    assert not any(shedding.refuses("batch", 0.0) for _ in range(50))


def test_without_classes_no_decision_can_shed():
    limits = Limits(8, 512, shed=0.5)
    none, some = Envelope(8, 512, 2048, 64, 16), Envelope(8, 512, 2048, 64, 16, ("batch",))
    assert clamp(limits, none)[0].shed == 0.0
    assert clamp(limits, none)[1] == {"shed": 0.0}
    assert clamp(limits, some)[0].shed == 0.5
    assert clamp(Limits(8, 512, shed=7.0), some)[0].shed == 1.0


def test_what_waits_in_vain():
    endless = float("inf")
    arrival_s, laxity_s = np.array([0.0, 0.0, 0.0, 2.0]), np.array([-0.1, 1.0, endless, endless])
    late = is_in_vain(arrival_s, laxity_s, OVERDUE_S + 1)
    assert late.tolist() == [True, False, True, False], "past the deadline, or overdue without one"
    assert not is_in_vain(arrival_s, laxity_s, OVERDUE_S)[2]


# -- the gate of an API server -----------------------------------------------------------


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def totals(share: float, left_s: float = 60.0, rank: int = 0) -> dict[str, Any]:
    lease = {"rank": rank, "shed": share, "lease_left_s": left_s, "parts": {}}
    return {**lease, "counters": [], "loads": []}


def test_the_door_closes_again_by_itself():
    clock = Clock()
    gate = AdmissionGate(clock)
    assert gate.share == 0.0
    gate.follow([totals(0.5)])
    clock.now_s += LAPSE_S - 0.1
    assert gate.share == 0.5
    clock.now_s += 0.2
    assert gate.share == 0.0, "nothing was heard of the engine"
    gate.follow([totals(0.5, left_s=1.0)])
    clock.now_s += 1.1
    assert gate.share == 0.0, "the lease has ended"


def test_of_several_ranks_the_least_counts():
    gate = AdmissionGate(Clock())
    gate.follow([totals(0.5, rank=3), totals(0.25, rank=1)])
    assert gate.share == 0.25
    gate.follow([totals(1.0), totals(0.0)])
    assert gate.share == 0.0
    gate.follow([])
    assert gate.share == 0.0


# -- a server, end to end, with the real scheduler behind it -------------------------------


def counted(server: ApiServer) -> dict[str, int]:
    return {row.slo_class: row.rejected for row in server.engine.snapshot().counters}


def test_it_is_answered_503_with_retry_after_in_vllms_form_and_never_reaches_the_engine():
    server = ApiServer(SETTINGS)
    server.shed(1.0)
    reply = server.post("batch")
    assert reply.status_code == REFUSED
    assert reply.headers["retry-after"] == "7"
    error = reply.json()["error"]
    assert (error["code"], error["type"]) == (REFUSED, "ServiceUnavailableError")
    assert "'batch'" in error["message"]
    assert "try again in 7 s" in error["message"]
    assert reply.headers["x-request-id"].startswith("refused-")
    assert server.served == []
    assert server.post("interactive").status_code == OK


def test_nothing_is_refused_before_a_decision_says_so_nor_after():
    server = ApiServer(SETTINGS)
    assert server.post("batch").status_code == OK
    server.shed(1.0)
    assert server.post("batch").status_code == REFUSED
    server.shed(0.0)
    assert server.post("batch").status_code == OK
    server.shed(1.0)
    server.engine.release("me")
    server.poll()
    assert server.post("batch").status_code == OK, "the lease was given back"


def test_a_refusal_is_a_miss_in_the_journal_and_in_the_counters():
    server = ApiServer(SETTINGS)
    server.shed(0.5)
    codes = [server.post("batch").status_code for _ in range(6)]
    assert codes.count(REFUSED) == 3
    assert counted(server) == {}, "told with the next poll"
    server.poll()
    assert counted(server) == {"batch": 3}
    arrivals, outcomes = journal_of(server.engine)
    assert len(arrivals) == len(outcomes) == 3
    assert {a.request_id for a in arrivals} == {o.request_id for o in outcomes}
    for outcome in outcomes:
        assert (outcome.finish, outcome.met, outcome.miss) == ("rejected", False, "not_served")
        assert (outcome.tenant, outcome.slo_class) == ("acme", "batch")
        assert outcome.prompt_tokens > 1
        assert (outcome.policy, outcome.epoch) == ("edf", server.engine.snapshot().epoch)
    server.poll()
    assert counted(server) == {"batch": 3}, "once"


def test_what_could_not_be_told_is_told_later():
    server = ApiServer(SETTINGS)
    server.shed(1.0)
    server.post("batch")
    server.down = True
    with pytest.raises(Exception, match="EngineCore died"):
        server.poll()
    server.down = False
    server.poll()
    assert counted(server) == {"batch": 1}


def test_a_flood_of_refusals_is_told_whole_and_in_pages():
    server = ApiServer(SETTINGS)
    server.shed(1.0)
    sent = 1203
    for number in range(sent):
        server.gate.note(Arrival(0, f"refused-{number}", 0.0, "acme", "batch", SLO(), 1, 1))
    server.poll()
    assert counted(server) == {"batch": sent}


def test_believed_headers_of_a_gateway_count(monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", "t")
    assert sign_tenant("x")
    server = ApiServer(SETTINGS.model_copy(update={"gateway": "always"}))
    server.shed(1.0)
    headers = {"x-hmas-slo-class": "interactive"}
    assert server.post("batch", headers=headers).status_code == OK
    assert server.post("interactive", headers={"x-hmas-slo-class": "batch"}).status_code == REFUSED


@pytest.mark.parametrize("content", [
    b"", b"not json", b"[]", b"null", b'{"vllm_xargs": 3}', b'{"vllm_xargs": {"slo_class": []}}',
    b"\xff\xfe", b"[" * 100_000,
])  # fmt: skip
def test_what_cannot_be_judged_is_vllms_to_answer(content):
    server = ApiServer(EngineSettings(contract=with_classes({}, ["best_effort"])))
    server.shed(1.0)
    assert server.post("x", json=None, content=content).status_code in {OK, BAD}


def test_only_routes_that_serve_a_model_are_looked_at():
    server = ApiServer(SETTINGS)
    server.shed(1.0)
    assert server.post("batch", path="/v1/embeddings").status_code == httpx.codes.NOT_FOUND


def test_a_fault_of_ours_lets_the_request_pass(monkeypatch):
    server = ApiServer(SETTINGS)
    server.shed(1.0)
    monkeypatch.setattr(AdmissionGate, "sheds", lambda *_: 1 / 0)
    assert server.post("batch").status_code == OK
    assert json.dumps(server.served[0]), "with its whole body"


# -- in virtual time ---------------------------------------------------------------------


def test_the_simulated_engine_refuses_alike_and_counts_alike():
    engine = SimulatedEngine(profile(), SETTINGS)
    engine.apply(Decision("me", 1, 1000.0, "fcfs", {}, Limits(8, 512, shed=0.5)))
    requests = [
        TraceRequest(float(i), 50, 4, "acme", "batch" if i % 2 else "interactive")
        for i in range(40)
    ]
    outcomes = engine.run(requests)
    rejected = [o for o in outcomes if o.finish == "rejected"]
    assert len(rejected) == 10
    assert {(o.slo_class, o.met, o.miss) for o in rejected} == {("batch", False, "not_served")}
    assert all(o.finish == "stop" for o in outcomes if o.slo_class == "interactive")
    told = [o for o in journal_of(engine)[1] if o.finish == "rejected"]
    assert [o.request_id for o in told] == [o.request_id for o in rejected]
    (row,) = [row for row in engine.snapshot().counters if row.slo_class == "batch"]
    assert (row.received, row.rejected) == (10, 10)


def test_the_snapshot_counts_sheddable_requests_that_wait_and_those_in_vain():
    targets = {"batch": SLO(ttft_ms=1000)}
    settings = EngineSettings(contract=with_classes(targets, ["batch"]))
    engine = SimulatedEngine(profile(max_active_requests=1), settings)
    requests = [
        TraceRequest(0.0, 50, 2000, "acme", "interactive"),
        *(TraceRequest(at_s, 50, 4, "acme", "batch") for at_s in (1.0, 1.5, 4.0)),
        TraceRequest(1.0, 50, 4, "acme", "interactive"),
    ]
    seen = []

    def look() -> None:
        queue = engine.snapshot().queue
        seen.append((queue.waiting, queue.sheddable, queue.sheddable_hopeless))

    engine.run(sorted(requests, key=lambda r: r.arrival_s), [(4.25, look)], until_s=4.5)
    assert seen == [(4, 3, 2)]


def test_when_the_lease_ends_it_refuses_nobody():
    engine = SimulatedEngine(profile(), SETTINGS)
    engine.apply(Decision("me", 1, 10.0, "fcfs", {}, Limits(8, 512, shed=1.0)))
    requests = [TraceRequest(float(i), 50, 4, "acme", "batch") for i in range(20)]
    finishes = [outcome.finish for outcome in engine.run(requests)]
    assert finishes == ["rejected"] * 10 + ["stop"] * 10

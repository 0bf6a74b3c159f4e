"""What does the hook know of grammars, adapters, draft tokens and pauses?"""

import pytest
from vllm.v1.core.sched.interface import PauseState

from serving.contracts import CostCoefficients
from serving.contracts.settings import EngineSettings
from tests.serving.driven_scheduler import machine
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import Shaped, decode_shapes, with_drafts, with_lora

ROOMY = machine(200, 8, 16)
BY_KEY = {"prefill_by_key": True}


def lane_work(engine: Shaped) -> dict[str, float]:
    return {lane.tenant: lane.work for lane in engine.scheduler.queue.lanes}


def begun_and_urgent(**urgent) -> Shaped:
    """A long prefill has begun when a short and urgent request comes."""
    engine = Shaped(profile=ROOMY)
    engine.decide("edf", **BY_KEY)
    engine.add("long", 44, 3, slo_ttft_ms=600_000)
    engine.step()
    engine.add("urgent", 12, 3, slo_ttft_ms=3000, **urgent)
    return engine


def covered_at(engine: Shaped) -> list[float]:
    """When their tenants' buckets cover those that wait, the earliest first."""
    requests = engine.scheduler.queue.core.requests
    return sorted(requests["conforms_s"][requests["queued"] > 0].tolist())


# -- structured output -------------------------------------------------------------------


def test_waiting_for_a_grammar_costs_no_lane_no_bucket_and_no_count():
    settings = EngineSettings(max_wait_s=1.0, bucket_s=0.01, contract=shares({}, {"f": 0.4}))
    engine = Shaped(profile=ROOMY, settings=settings)
    engine.decide("edf", tenant_buckets=True)
    for i in range(4):
        engine.add(f"g{i}", 40, 3, grammar=True, tenant="hog")
    engine.add("f", 30, 3, grammar=True, tenant="f")
    before = covered_at(engine)
    assert max(before) > engine.now_s
    engine.add("p", 4, 40, tenant="meek")
    engine.step(3)
    assert covered_at(engine) == before, "still beyond its share"
    engine.now_s += 2.0  # beyond the ceiling
    engine.step(10)
    rules = engine.scheduler.hmas_snapshot().rules
    assert (rules["ceiling_served"], rules["floor_served"]) == (0, 0), "nobody was served"
    work = lane_work(engine)
    assert (work["hog"], work["f"]) == (0.0, 0.0)
    for name in ("g0", "g1", "g2", "g3", "f"):
        engine.compiled(name)
    engine.drain()
    rules = engine.scheduler.hmas_snapshot().rules
    served = (rules["ceiling_served"], rules["floor_served"])
    assert served == (5, 1), "each once, and f is owed, too"
    engine.check_books()


@pytest.mark.parametrize("why", ["grammar", "paused"])
def test_no_prefill_yields_to_a_head_that_cannot_start(why):
    engine = begun_and_urgent(grammar=why == "grammar")
    if why == "paused":
        engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    engine.step(3)
    assert [dict(step[0])["long"] for step in engine.steps[:3]] == [16, 16, 12]
    assert engine.scheduler.hmas_snapshot().rules["yielded_prefills"] == 0


# -- LoRA --------------------------------------------------------------------------------


def test_the_tenant_is_the_loras_name_and_one_adapter_at_a_time_runs(monkeypatch):
    with_lora(monkeypatch)
    engine = Shaped(profile=ROOMY)
    engine.decide("fair")
    for i in range(6):
        engine.add(f"r{i}", 10, 8, lora=1 + i % 2)
    engine.add("named", 5, 3, lora=1, tenant="acme")
    engine.drain()
    engine.check_books()
    rows = {row.tenant: row.received for row in engine.scheduler.hmas_snapshot().counters}
    assert rows == {"lora1": 3, "lora2": 3, "acme": 1}
    for step in engine.steps:
        assert len({engine.requests[n].lora_request.lora_name for n, _ in step[0]}) <= 1


def test_a_prefill_with_an_adapter_does_not_yield_its_slot_to_another_one(monkeypatch):
    """vLLM asserts in the next step that what runs needs at most max_loras adapters."""
    with_lora(monkeypatch)
    engine = Shaped(profile=ROOMY)
    engine.decide("edf", **BY_KEY)
    engine.add("long", 44, 3, lora=1, slo_ttft_ms=600_000)
    engine.step()
    engine.add("urgent", 12, 3, lora=2, slo_ttft_ms=3000)
    engine.drain()
    engine.check_books()


# -- speculative decoding ----------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_budget_by_slack_leaves_out_no_decode_and_no_draft_token(ahead, monkeypatch):
    with_drafts(monkeypatch, 3)
    dear = CostCoefficients(5e-3, 2e-3, 2e-5)
    engine = Shaped(profile=machine(200, 8, 32), ahead=ahead, cost=dear)
    engine.decide("fcfs", follow_slack=True)
    for i in range(4):
        engine.add(f"r{i}", 4, 40, slo_tpot_ms=6)
    engine.step(10)
    assert [dict(step[0]) for step in engine.steps] == [{f"r{i}": 4 for i in range(4)}] * 10
    assert engine.scheduler.hmas_snapshot().rules["slack_bound_steps"] > 0, "it was bounded"


@pytest.mark.parametrize("ahead", [0, 1])
def test_rejected_draft_tokens_are_not_counted_as_context(ahead, monkeypatch):
    with_drafts(monkeypatch, 3)
    engine = Shaped(profile=machine(200, 8, 32), ahead=ahead)
    for i in range(6):
        engine.add(f"r{i}", 4, 40)
    engine.step(2)
    told, learned = decode_shapes(engine, 8)
    assert learned[ahead:] == told[: len(told) - ahead]


# -- pauses and resets -------------------------------------------------------------------


def test_a_paused_engine_does_no_work():
    engine = Shaped(profile=ROOMY)
    engine.add("a", 10, 20)
    engine.step(3)
    before = lane_work(engine)
    engine.scheduler.set_pause_state(PauseState.PAUSED_ALL)
    engine.step(10)
    assert lane_work(engine) == before


def test_a_cache_reset_takes_nothing_back_that_was_done():
    engine = Shaped(profile=ROOMY)
    engine.decide("fair")
    engine.add("a", 10, 8)
    engine.step()
    before = lane_work(engine)
    engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    assert lane_work(engine) == before
    engine.drain()
    engine.check_books()
    assert engine.scheduler.observer.preemptions == 1


def test_an_idle_session_does_not_count_as_a_decode():
    engine = Shaped(profile=ROOMY)
    engine.add("session", 6, 2, resumable=True, tenant="talker")
    engine.add("other", 9, 30, tenant="other")
    engine.step(5)
    before = lane_work(engine)
    engine.step(10)
    assert lane_work(engine)["talker"] == before["talker"]
    assert engine.scheduler.hmas_snapshot().batch.decoding == 1
    engine.add("session", [7] * 5, 3, resumable=True)
    engine.step(3)
    assert engine.got["session"] > 0
    engine.abort("session")
    engine.drain()


# -- chunked prefill ---------------------------------------------------------------------


@pytest.mark.parametrize(("waits_s", "is_late"), [(0.0, True), (0.03, False)])
def test_a_prefill_is_late_by_the_tokens_that_are_left(waits_s, is_late):
    """After 20 ms 28 tokens are left, 56 of 80 ms: late, but not hopeless, as 56 of 50 ms are."""
    engine = Shaped(profile=machine(200, 8, 64), cost=CostCoefficients(5e-3, 2e-3, 2e-5))
    engine.decide("fcfs", follow_slack=True, prefill_share=0.9, long_prefill_threshold=16)
    engine.add("tight", 4, 40, slo_tpot_ms=21)
    engine.step(3)
    engine.add("long", 44, 3, slo_ttft_ms=100)  # 88 ms of prefill: it must begin within 12 ms
    engine.step()
    assert dict(engine.steps[-1][0])["long"] == 16
    engine.now_s += waits_s
    before = engine.scheduler.hmas_snapshot().rules["share_raised_steps"]
    engine.step()
    raised = engine.scheduler.hmas_snapshot().rules["share_raised_steps"] - before
    assert raised == is_late


def test_a_prefill_yields_to_a_head_as_soon_as_its_grammar_is_there():
    engine = begun_and_urgent(grammar=True)
    engine.compiled("urgent")
    engine.drain()
    assert any("urgent" in step[1] for step in engine.steps[:3])
    assert engine.scheduler.hmas_snapshot().rules["yielded_prefills"] > 0

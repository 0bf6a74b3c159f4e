"""Does the hook serve requests whose prompt another engine has computed (P/D, a KV connector)?"""

from typing import Any

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from serving.contracts import CostCoefficients
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from serving.scheduler import HMASScheduler, HMASSyncScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import Shaped, with_remote_kv

ROOMY, TIGHT = machine(200, 8, 16), machine(30, 6, 16)
ALL_RULES = {name: value for rule in RULES.values() for name, value in rule.items()}
SCHEDULERS = [(AsyncScheduler, HMASScheduler), (Scheduler, HMASSyncScheduler)]


@pytest.fixture(autouse=True)
def decode_node(monkeypatch):
    with_remote_kv(monkeypatch)


def remote(**params: Any) -> dict[str, Any]:
    return {"kv_transfer_params": params or {"do_remote_prefill": True}}


def feed(engine: Shaped) -> None:
    """All kinds: computed elsewhere, in part, found late, here, and clients that leave."""
    kinds: list[dict[str, Any]] = [
        {"do_remote_prefill": True}, {"remote_tokens": 12}, {}, {"do_remote_prefill": True,
        "unknown_for": 3}, {"remote_tokens": 8, "load_steps": 0}, {"do_remote_prefill": True,
        "load_steps": 6},
    ]  # fmt: skip
    for i in range(24):
        engine.add(
            f"r{i}", 5 + 7 * (i % 6), 3 + i % 8, tenant=f"t{i % 3}", slo_ttft_ms=500,
            slo_tpot_ms=30, kv_transfer_params=dict(kinds[i % 6]),
        )  # fmt: skip
        engine.step(1)
    engine.abort("r17", "r18", "r23")


@pytest.mark.parametrize("profile", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize(
    ("ahead", "pair"), [(0, 0), (1, 0), (0, 1)], ids=["async", "ahead", "sync"]
)
def test_without_a_controller_it_is_scheduled_exactly_as_by_stock_vllm(profile, ahead, pair):
    stock, hooked = (Shaped(cls, profile=profile, ahead=ahead) for cls in SCHEDULERS[pair])
    for arm in (stock, hooked):
        feed(arm)
        arm.drain()
    assert hooked.steps == stock.steps
    assert (hooked.got, hooked.finished) == (stock.got, stock.finished)
    hooked.check_books()


@pytest.mark.parametrize("profile", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("policy", ["slide", "fair"])
@pytest.mark.parametrize(("ahead", "pair"), [(1, 0), (0, 1)], ids=["ahead", "sync"])
def test_with_a_policy_and_all_rules_everybody_is_served(profile, policy, ahead, pair):
    settings = EngineSettings(contract=shares({}, {"t0": 0.3}), bucket_s=0.1, max_wait_s=1.0)
    engine = Shaped(SCHEDULERS[pair][1], settings, profile=profile, ahead=ahead)
    engine.decide(policy, **ALL_RULES)
    feed(engine)
    engine.drain()
    engine.check_books()
    assert sum(why == "stop" for why in engine.finished.values()) >= 21


def test_a_long_prompt_that_another_engine_computes_is_not_hopeless():
    """Of 40 tokens at 20 ms each, due in 100 ms, one is computed here."""
    engine = Shaped(profile=ROOMY, cost=CostCoefficients(5e-3, 20e-3, 2e-5))
    engine.decide("edf", demote_hopeless=True, triage=True, max_active_requests=1)
    engine.add("first", 4, 6)
    for i in range(3):
        engine.add(f"r{i}", 40, 3, slo_ttft_ms=100, **remote())
    engine.step(2)
    assert engine.scheduler.hmas_snapshot().queue.hopeless == 0
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 3
    engine.drain()
    rules = engine.scheduler.hmas_snapshot().rules
    assert (rules["demoted"], rules["parked"]) == (0, 0)


def test_a_prompt_counts_in_full_again_once_its_remote_kv_is_lost():
    """A preempted one has been fetched: the connector has nothing for it any more."""
    engine = Shaped(profile=ROOMY)
    request = engine.add("r", 30, 9, **remote())
    assert engine.fact("r", "prompt_tokens") == 1
    engine.step(6)
    assert engine.got["r"] > 0
    engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    assert engine.fact("r", "prompt_tokens") == request.num_tokens


def test_who_loads_remote_kv_is_counted_as_waiting_and_held():
    engine = Shaped(profile=ROOMY)
    for i in range(3):
        engine.add(f"r{i}", 20, 3, **remote(do_remote_prefill=True, load_steps=5))
    engine.add("here", 9, 3)
    engine.step(2)
    shot, totals = engine.scheduler.hmas_snapshot(), engine.scheduler.hmas_totals()
    assert (shot.queue.waiting, totals.waiting, shot.batch.running) == (3, 3, 1)
    assert shot.queue.oldest_wait_s > 0.0
    page = engine.scheduler.hmas_inside(10)
    assert ({r.request_id for r in page.requests}, page.left_out) == (set(engine.requests), 0)
    row = shot.counters[0]
    inside = shot.queue.waiting + shot.batch.running
    assert row.received == row.finished + row.aborted + inside
    engine.abort("r0")
    assert engine.scheduler.hmas_snapshot().queue.waiting == 2
    engine.drain()
    engine.check_books()


def test_what_a_connector_brings_counts_once_vllm_has_asked_it():
    """vLLM asks for the request in front, and then finds no KV blocks for it."""
    engine = Shaped(profile=machine(14, 6, 32))
    engine.decide("edf", demote_hopeless=True)
    engine.add("first", 16, 12)
    engine.step()
    engine.add("front", 40, 3, **remote(remote_tokens=28))
    engine.add("next", 36, 3, **remote(remote_tokens=28))
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 40 + 36
    engine.step(4)
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 12 + 36
    engine.drain()
    engine.check_books()


def test_loads_begin_in_the_order_of_the_policy():
    engine = Shaped(profile=machine(200, 2, 16))
    engine.decide("edf", max_active_requests=1)
    engine.add("first", 4, 3)
    engine.step()
    for i, ttft_ms in enumerate([9000, 3000, 6000, 1000]):
        engine.add(f"r{i}", 20, 3, slo_ttft_ms=ttft_ms, **remote())
    engine.drain()
    loads = [name for name in engine.scheduler.connector.asked if name.startswith("r")]
    assert loads == ["r3", "r1", "r2", "r0"]


@pytest.mark.parametrize("policy", ["fcfs", "edf"])
def test_those_that_hold_their_kv_start_in_the_order_of_the_policy(policy):
    """One place is free while all of them load, and when all have loaded."""
    engine = Shaped(profile=machine(200, 2, 16))
    engine.decide(policy)
    engine.add("first", 4, 40)
    engine.step()
    for i, ttft_ms in enumerate([9000, 3000, 6000, 1000]):
        params = {"do_remote_prefill": True, "load_steps": 8 - i}
        engine.add(f"r{i}", 20, 3, slo_ttft_ms=ttft_ms, **remote(**params))
        engine.step()
    engine.drain()
    began = [name for step in engine.steps for name in step[1] if name.startswith("r")]
    if policy == "edf":
        assert began == ["r3", "r1", "r2", "r0"]
    assert sorted(began) == ["r0", "r1", "r2", "r3"]
    engine.check_books()


def test_a_stream_of_remote_prompts_starves_no_prompt_that_is_computed_here():
    """A hopeless one, behind all others until it has waited for `max_wait_s`."""
    engine = Shaped(profile=machine(200, 2, 16), settings=EngineSettings(max_wait_s=1.0))
    engine.decide("edf", demote_hopeless=True)
    for i in range(150):
        if i == 20:
            local = engine.add("local", 40, 3, slo_ttft_ms=1)
        engine.add(f"r{i}", 20, 6, slo_ttft_ms=60_000, **remote())
        engine.step()
        if engine.got.get("local"):
            break
    assert engine.now_s - local.arrival_time < 1.5
    assert engine.scheduler.hmas_snapshot().queue.waiting > 20, "the stream had not ended"
    engine.drain()
    engine.check_books()


def lane_work(engine: Shaped) -> dict[str, float]:
    return {lane.tenant: lane.work for lane in engine.scheduler.queue.lanes}


@pytest.mark.parametrize("load_steps", [0, 3])
def test_a_tenant_pays_for_what_is_computed_here_of_a_prompt(load_steps):
    engine = Shaped(profile=machine(200, 8, 64), prefix_caching=True)
    engine.decide("fair")
    engine.add("part", 40, 2, tenant="part", **remote(remote_tokens=24, load_steps=load_steps))
    engine.add("all", 40, 2, tenant="all", **remote(do_remote_prefill=True, load_steps=load_steps))
    engine.add("none", [*range(60, 100)], 2, tenant="none")
    engine.drain()
    assert lane_work(engine) == {"part": 16 + 2, "all": 1 + 2, "none": 40 + 2}


def test_no_rule_holds_back_one_that_has_its_remote_kv():
    """It holds KV blocks already: to let it wait frees nothing, and vLLM serves it first."""
    engine = Shaped(profile=ROOMY)
    engine.decide("edf", max_partial_prefills=1, prefill_share=0.9, long_prefill_threshold=4)
    engine.add("loading", 20, 4, **remote())
    engine.add("long", 44, 3)
    engine.step()
    engine.add("other", 44, 3)
    engine.step(4)
    assert engine.got["loading"] > 0
    assert engine.got["long"] == 0, "its prefill goes on"
    assert engine.requests["other"].num_computed_tokens == 0, "it is held back"
    engine.drain()
    engine.check_books()


def test_the_connector_is_asked_by_vllm_alone():
    asked = []
    for cls in (AsyncScheduler, HMASScheduler):
        engine = Shaped(cls, profile=ROOMY)
        feed(engine)
        engine.drain()
        asked.append(engine.scheduler.connector.asked)
    assert asked[0] == asked[1]


def test_the_engine_says_at_start_what_is_not_known_of_a_connector(caplog):
    with caplog.at_level("WARNING", logger="vllm.hmas"):
        Shaped(profile=ROOMY)
    said = [r.getMessage() for r in caplog.records if "KV connector RemoteKV" in r.getMessage()]
    assert len(said) == 1
    assert "a waiting prompt counts in full" in said[0]

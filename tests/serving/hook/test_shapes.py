"""Does the hook serve every shape of request and engine, and as stock vLLM does under fcfs?"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import RequestStatus

from serving.compat import mark_ended_answers
from serving.contracts import Limits
from serving.contracts.rules import RULES, with_rules
from serving.contracts.settings import EngineSettings
from serving.scheduler import HMASScheduler, HMASSyncScheduler, hmas_scheduler
from tests.serving.driven_scheduler import machine
from tests.serving.hook.test_ended_answers import Client
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import Shaped, with_drafts, with_lora

ROOMY, TIGHT = machine(200, 8, 16), machine(30, 6, 16)
ALL_RULES = {
    name: value for rule in RULES.values() for name, value in rule.items()
}  # fmt: skip
PREFIX = list(range(2, 26))
Feed = Callable[[Shaped], None]


def plain(engine: Shaped) -> None:
    """Prompts longer than a step, on an engine whose KV cache is too small for all."""
    rng = random.Random(3)
    for i in range(24):
        engine.add(f"r{i}", rng.randint(1, 40), rng.randint(1, 20), tenant=f"t{i % 3}",
                   slo_ttft_ms=rng.choice([100, 1000, 9000]), slo_tpot_ms=30)  # fmt: skip
        if i % 3 == 0:
            engine.step(2)


def prefixes(engine: Shaped) -> None:
    for i in range(16):
        shared = PREFIX if i % 2 else [60 + i] * 24
        engine.add(f"r{i}", [*shared, 70 + i, 71 + i], 4 + i % 5, tenant=f"t{i % 3}")
        engine.step(1)


def grammars(engine: Shaped) -> None:
    """Some wait long for their grammar, for one it cannot be compiled, one client leaves."""
    for i in range(16):
        engine.add(f"r{i}", 6 + i, 5, grammar=i % 2 == 0, tenant=f"t{i % 3}", slo_ttft_ms=900)
    engine.step(4)
    engine.compiled("r4")
    engine.step(3)
    engine.compiled("r6", ValueError("no such grammar"))
    engine.abort("r8")
    engine.step(3)
    for i in (0, 2, 10, 12, 14):
        engine.compiled(f"r{i}")


def loras(engine: Shaped) -> None:
    """Three adapters, one at a time; short urgent requests come while long ones are begun."""
    for i in range(24):
        long = i % 4 == 0
        engine.add(f"r{i}", 44 if long else 5 + i % 7, 3, lora=i % 4,
                   slo_ttft_ms=600_000 if long else 2_000)  # fmt: skip
        engine.step(1)


def aborts(engine: Shaped) -> None:
    """Clients leave while their request waits, prefills, decodes, and is in flight."""
    for i in range(20):
        engine.add(f"r{i}", 3 + 2 * i, 12, tenant=f"t{i % 3}", slo_ttft_ms=500)
    for i in range(0, 20, 3):
        engine.step(3)
        engine.schedule()
        engine.abort(f"r{i}", f"r{i // 3}", "unknown")


def pauses(engine: Shaped) -> None:
    """Paused altogether and for new requests, with prefills begun and decodes running."""
    for state in (PauseState.PAUSED_ALL, PauseState.PAUSED_NEW) * 3:
        for _ in range(3):
            engine.add(f"r{len(engine.requests)}", 5 + 7 * (len(engine.requests) % 6), 6,
                       slo_ttft_ms=2000)  # fmt: skip
        engine.step(2)
        engine.scheduler.set_pause_state(state)
        engine.step(5)
        engine.scheduler.set_pause_state(PauseState.UNPAUSED)


def resets(engine: Shaped) -> None:
    """The prefix cache is reset with running requests, which are thereby preempted."""
    for i in range(15):
        engine.add(f"r{i}", 5 + 2 * i, 8, tenant=f"t{i % 3}", slo_tpot_ms=30)
        engine.step(2)
        if i % 4 == 3:
            engine.schedule()
            assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)


def sessions(engine: Shaped) -> None:
    """Streaming input: between its answers a session neither runs nor has left."""
    for i in range(3):
        engine.add(f"s{i}", 6 + i, 4, resumable=True, tenant="talker")
        engine.add(f"r{i}", 9, 20, tenant="other")
    engine.step(12)
    waits = RequestStatus.WAITING_FOR_STREAMING_REQ
    assert [engine.requests[f"s{i}"].status for i in range(3)] == [waits] * 3
    engine.abort("s0", "s1", "s2")


def answers(engine: Shaped) -> None:
    """Three answers to each prompt: vLLM makes a request of each (`ParentRequest`)."""
    for i in range(6):
        for number in range(3):
            prompt = [*PREFIX, 70 + i]
            engine.add(f"{number}_r{i}", prompt, 3 + 4 * number, tenant=f"t{i % 3}")
        engine.step(1)
    engine.step(4)
    engine.abort(*(f"{number}_r4" for number in range(3)))  # the client of all three left


def stop_strings(engine: Shaped) -> None:
    """The API server aborts, with a mark that stock vLLM ignores as it does unknown ids."""
    client = Client(engine)
    assert mark_ended_answers(client)
    for i in range(18):
        engine.add(f"r{i}", 3 + 2 * i % 30, 12, tenant=f"t{i % 3}", slo_ttft_ms=500)
    for _ in range(12):
        engine.step(3)
        inside = engine.got.keys() - engine.finished.keys()
        for name in sorted(n for n in inside if engine.got[n] > 2)[:2]:
            client.stop(name)
            engine.finished[name] = "stop"
            engine.answers[name] = engine.requests[name].num_output_tokens


def crowded_loras(engine: Shaped) -> None:
    """Seven adapters and two slots, in no order; some wait for a grammar too."""
    rng = random.Random(7)
    for i in range(28):
        engine.add(f"r{i}", rng.randint(3, 40), rng.randint(2, 9), lora=rng.randint(0, 7),
                   grammar=i % 7 == 3, slo_ttft_ms=rng.choice([300, 3000, 600_000]))  # fmt: skip
        engine.step(1)
    for i in range(3, 28, 7):
        engine.compiled(f"r{i}")


SHAPES: dict[str, tuple[Feed, dict[str, Any]]] = {
    "chunked prefill, preemptions": (plain, {"profile": TIGHT}),
    "prefix caching": (prefixes, {"profile": ROOMY, "prefix_caching": True}),
    "prefix caching, preemptions": (prefixes, {"profile": TIGHT, "prefix_caching": True}),
    "structured output": (grammars, {"profile": ROOMY}),
    "LoRA": (loras, {"profile": ROOMY}),
    "aborts": (aborts, {"profile": TIGHT}),
    "drafts": (plain, {"profile": ROOMY}),
    "drafts, preemptions": (plain, {"profile": TIGHT}),
    "drafts, grammars": (grammars, {"profile": ROOMY}),
    "drafts, aborts": (aborts, {"profile": ROOMY}),
    "pause and resume": (pauses, {"profile": ROOMY}),
    "cache resets": (resets, {"profile": TIGHT, "prefix_caching": True}),
    "streaming input": (sessions, {"profile": ROOMY}),
    "several answers": (answers, {"profile": TIGHT, "prefix_caching": True}),
    "stop strings": (stop_strings, {"profile": TIGHT}),
    "LoRA, more adapters than slots": (crowded_loras, {"profile": ROOMY}),
}
SCHEDULERS = [(AsyncScheduler, HMASScheduler), (Scheduler, HMASSyncScheduler)]


@pytest.fixture(params=list(SHAPES))
def shape(request, monkeypatch):
    if "LoRA" in request.param:
        with_lora(monkeypatch, 2 if "slots" in request.param else 1)
    if "drafts" in request.param:
        with_drafts(monkeypatch)
    return SHAPES[request.param]


@pytest.mark.parametrize(
    ("ahead", "pair"), [(0, 0), (1, 0), (0, 1)], ids=["async", "ahead", "sync"]
)
def test_without_a_controller_every_shape_is_scheduled_exactly_as_by_stock_vllm(shape, ahead, pair):
    feed, engine = shape
    stock, hooked = (Shaped(cls, ahead=ahead, **engine) for cls in SCHEDULERS[pair])
    for arm in (stock, hooked):
        feed(arm)
        arm.drain()
    assert hooked.steps == stock.steps
    assert (hooked.got, hooked.finished) == (stock.got, stock.finished)
    hooked.check_books()


@pytest.mark.parametrize("policy", ["slide", "fair"])
@pytest.mark.parametrize(("ahead", "pair"), [(1, 0), (0, 1)], ids=["ahead", "sync"])
def test_with_a_policy_and_all_rules_every_shape_is_served(shape, ahead, pair, policy):
    feed, engine = shape
    settings = EngineSettings(contract=shares({"t1": 2.0}, {"t0": 0.3}), bucket_s=0.1)
    hooked = Shaped(SCHEDULERS[pair][1], settings, ahead=ahead, **engine)
    hooked.decide(policy, **ALL_RULES)
    feed(hooked)
    hooked.drain()
    hooked.check_books()
    for name, why in hooked.finished.items():
        request = hooked.requests[name]
        if why in ("stop", "length"):
            assert request.num_output_tokens == min(hooked.answers[name], request.max_tokens)


def test_rules_are_those_of_the_registry():
    limits = with_rules(Limits(1, 1), RULES)
    assert replace(Limits(1, 1), **ALL_RULES) == limits


@pytest.mark.parametrize("ahead", [True, False])
def test_vllms_choice_of_scheduler_is_followed(ahead, monkeypatch):
    chosen = Shaped(hmas_scheduler if ahead else HMASSyncScheduler).scheduler
    config = chosen.vllm_config
    monkeypatch.setattr(config.scheduler_config, "async_scheduling", ahead)
    again = hmas_scheduler(
        config, kv_cache_config=chosen.kv_cache_config, block_size=chosen.block_size,
        structured_output_manager=chosen.structured_output_manager,
    )  # fmt: skip
    assert type(again) is (HMASScheduler if ahead else HMASSyncScheduler)
    assert isinstance(again, AsyncScheduler) == ahead


def test_the_synchronous_hook_refuses_to_schedule_ahead():
    built = Shaped(HMASScheduler).scheduler
    with pytest.raises(ValueError, match=r"HMASSyncScheduler.*scheduler\.hmas_scheduler"):
        HMASSyncScheduler(
            vllm_config=built.vllm_config, kv_cache_config=built.kv_cache_config,
            structured_output_manager=built.structured_output_manager,
            block_size=built.block_size,
        )  # fmt: skip

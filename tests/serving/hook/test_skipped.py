"""What do requests cost that vLLM skips in every step? Nothing may grow, and nothing may drift.

vLLM takes a request that cannot start yet (its grammar is being compiled, all LoRA slots are in
use) out of the queue and puts it back, in every step. With `-s` the figures are printed;
HMAS_SKIP_STEPS sets how many steps (20000 take minutes).
"""

import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest

from serving.contracts.settings import EngineSettings
from serving.policies import RequestView
from tests.serving.driven_scheduler import machine
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import Shaped, with_lora

STEPS = int(os.environ.get("HMAS_SKIP_STEPS", "200"))
SKIPPED = 200
SETTINGS = EngineSettings(
    contract=shares({"t1": 3.0}, {"t2": 0.2}), bucket_s=0.01, max_wait_s=3.0
)
RULES = {"triage": True, "tenant_buckets": True, "demote_hopeless": True}


def engine_that_skips(why: str, policy: str) -> Shaped:
    """One long answer, and many requests that cannot start; some are late, some starve."""
    profile = replace(machine(8_000, 60, 64), max_model_len=30_000)
    engine = Shaped(profile=profile, settings=SETTINGS, prefix_caching=True)
    engine.decide(policy, **RULES)
    engine.add("runs", [9] * 4, 25_000, lora=1 * (why == "LoRA"), tenant="t0")
    engine.step(2)
    for i in range(SKIPPED):
        engine.add(
            f"r{i}", 5 + i % 30, 2, grammar=why == "grammar", lora=2 * (why == "LoRA"),
            tenant=f"t{i % 4}", slo_ttft_ms=(200, 5_000, 600_000)[i % 3],
        )  # fmt: skip
    return engine


def places(engine: Shaped) -> int:
    """Rows of the queue, and tuples in memory that hold the view of a request."""
    gc.collect()
    held = sum(type(it) is tuple and RequestView in map(type, it) for it in gc.get_objects())
    return len(engine.scheduler.queue.core.requests) + held


def resident_mb() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def books(engine: Shaped) -> list[object]:
    """All that a skip could leave behind; of `t0` not the work, because it decodes."""
    queue = engine.scheduler.queue
    lanes = {
        lane.tenant: (lane.waiting, lane.inside, lane.decoding, lane.ahead_s,
                      0.0 if lane.tenant == "t0" else pytest.approx(lane.work, abs=1e-6))
        for lane in queue.lanes
    }  # fmt: skip
    rules = engine.scheduler.hmas_snapshot().rules
    return [lanes, rules, queue.backlog_tokens, [request.request_id for request in queue]]


@pytest.mark.parametrize("policy", ["fcfs", "edf", "fair"])
@pytest.mark.parametrize("why", ["grammar", "LoRA"])
def test_requests_that_are_skipped_in_every_step_cost_no_memory_and_change_nothing(
    why, policy, monkeypatch
):
    with_lora(monkeypatch)
    engine = engine_that_skips(why, policy)
    if not hasattr(engine.scheduler, "kv_holding_waiting"):
        pytest.skip("up to vLLM 0.30 what is skipped waits in a queue of vLLM's")
    engine.step(200)  # 4 s: who can become late or starve has
    looked_up = count_look_ups(engine, monkeypatch)
    before, start = places(engine), books(engine)
    resident = resident_mb()
    engine.step(STEPS)
    after, grown = places(engine), resident_mb() - resident
    print(f"\n{why}, {policy}: {SKIPPED} requests skipped in {STEPS} steps: {before} -> {after} "
          f"places, {grown:.0f} MB more, {looked_up[0]} look-ups of cached prefixes")  # fmt: skip
    assert len(engine.scheduler.queue) == SKIPPED
    assert after <= before
    assert looked_up[0] <= 2 * STEPS, "not one for each skipped request"
    assert books(engine) == start
    engine.abort("runs")
    for name in [r.request_id for r in engine.scheduler.queue] * (why == "grammar"):
        engine.compiled(name)
    engine.drain()
    engine.check_books()


def count_look_ups(engine: Shaped, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often the KV cache is asked for a prefix from now on, by vLLM or by the hook."""
    coordinator = engine.scheduler.kv_cache_manager.coordinator
    ask, asked = coordinator.find_longest_cache_hit, [0]

    def asking(*args, **kwargs):
        asked[0] += 1
        return ask(*args, **kwargs)

    monkeypatch.setattr(coordinator, "find_longest_cache_hit", asking)
    return asked

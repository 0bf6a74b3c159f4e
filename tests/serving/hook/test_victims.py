"""Are the victims of full KV caches those whose loss costs least, and never the same ones?"""

import math

import pytest

from serving.contracts.rules import with_rules
from serving.core.victims import DWELL_S
from serving.engines.simulated import SimulatedEngine
from tests.serving.driven_scheduler import machine
from tests.serving.samples import CLASSES, decision, mixed_load, profile
from tests.serving.shaped_scheduler import Shaped
from tests.serving.simulation import Run, simulate, stock_limits

TIGHT = profile(900, max_active_requests=128)
SEEDS = (1, 2, 5)
COUNT = 150


def run(seed: int, policy: str, *, choose: bool, classes: tuple[str, ...] = CLASSES) -> Run:
    """A load that needs more KV blocks than there are; policy `stock` is vLLM's scheduler."""
    load = mixed_load(COUNT, 50.0, seed, mean_output_tokens=120.0, classes=classes)
    limits = with_rules(stock_limits(TIGHT), ["victims"] if choose else [])

    def decide(engine: SimulatedEngine) -> None:
        if policy != "stock":
            engine.apply(decision(1, policy, ttl_s=80_000.0, limits=limits))

    return simulate(TIGHT, load, stock=policy == "stock", before=decide)


@pytest.fixture(scope="module")
def recomputed() -> dict[str, list[int]]:
    """Recomputed tokens by seed."""
    found: dict[str, list[int]] = {"stock": [], "fcfs": [], "edf": [], "edf, last": []}
    for seed in SEEDS:
        for name, counts in found.items():
            policy = name.partition(",")[0]
            done = run(seed, policy, choose=name in ("fcfs", "edf"))
            assert done.served == COUNT
            counts.append(done.engine.recomputed_tokens)
            if policy != "stock":
                shot = done.engine.snapshot()
                assert shot.kv.recomputed_tokens == done.engine.recomputed_tokens
                assert shot.kv.preemptions == done.preemptions
                assert (shot.rules["chosen_victims"] > 0) == (name in ("fcfs", "edf"))
                assert shot.policy_errors == 0
    return found


def test_recomputed_tokens_fall_against_stock_and_everyone_is_served(recomputed):
    stock, chosen = sum(recomputed["stock"]), sum(recomputed["fcfs"])
    assert stock > 20_000, "the workload is short of KV blocks"
    assert chosen < 0.8 * stock, recomputed


def test_recomputed_tokens_fall_under_a_policy_too(recomputed):
    assert sum(recomputed["edf"]) < 0.9 * sum(recomputed["edf, last"]), recomputed


def test_best_effort_is_taken_first():
    def share(done: Run) -> float:
        hit = [o for o in done.outcomes if o.preemptions]
        return sum(o.slo_class == "best_effort" for o in hit) / len(hit)

    classes = (*CLASSES, "best_effort")
    chosen, last = (share(run(2, "fcfs", choose=f, classes=classes)) for f in (True, False))
    assert chosen > 0.5, "a fifth of the requests are best effort"
    assert last < 0.3


@pytest.mark.parametrize("ahead", [0, 1])
def test_nobody_is_preempted_twice_within_the_dwell_while_another_could_be(ahead):
    preempted = twice = 0
    for seed in range(8):
        engine = Shaped(profile=machine(40, 10, 32), ahead=ahead)
        engine.decide(choose_victims=True)
        last_s: dict[str, float] = {}
        scheduler, preempt = engine.scheduler, engine.scheduler._preempt_request

        def watch(request, *args, engine=engine, last_s=last_s, preempt=preempt, **kwargs):
            nonlocal preempted, twice
            running, now_s = engine.scheduler.running, engine.now_s
            preempted += 1
            if now_s - last_s.get(request.request_id, -math.inf) < DWELL_S:
                twice += 1
                rested = [
                    r.request_id for r in running
                    if now_s - last_s.get(r.request_id, -math.inf) >= DWELL_S
                ]  # fmt: skip
                assert not rested, f"{request.request_id} was taken again instead of {rested}"
            last_s[request.request_id] = now_s
            preempt(request, *args, **kwargs)

        scheduler._preempt_request = watch
        for i, offered in enumerate(mixed_load(40, 50.0, seed, mean_output_tokens=20.0)):
            prompt = 1 + offered.prompt_tokens % 40
            engine.add(f"r{i}", prompt, min(offered.output_tokens, 48 - prompt))
            engine.step(i % 3)
        engine.drain()
        engine.check_books()
    assert preempted > 50, "there was something to choose"
    assert twice < preempted / 10

"""Does the hook serve models with several KV cache groups: sliding windows, Mamba layers?"""

import math

import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec

from serving import compat
from serving.contracts import CostCoefficients
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from serving.core.decoding import blocks_of, blocks_of_batch
from serving.engines.profile import EngineProfile
from serving.scheduler import HMASScheduler, HMASSyncScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.hook.test_shapes import plain, prefixes
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import (
    Shaped,
    attention,
    with_drafts,
    with_groups,
    with_mamba,
)

ALL_RULES = {name: value for rule in RULES.values() for name, value in rule.items()}
SCHEDULERS = [(AsyncScheduler, HMASScheduler), (Scheduler, HMASSyncScheduler)]
COST = CostCoefficients(5e-3, 3e-4, 1e-3)


def big(token_budget: int = 64, kv_blocks: int = 200) -> EngineProfile:
    """Blocks of 16 tokens, ten requests, 160 tokens each."""
    return EngineProfile("big", "for tests", COST, 10, token_budget, kv_blocks, 16, 160)


def mamba_and_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_drafts(monkeypatch, 3)
    with_mamba(monkeypatch, 16)


HYBRIDS = {
    "window": (lambda m: with_groups(m, attention(4), attention(4, 8)), machine(300, 8, 16)),
    "window, preemptions": (
        lambda m: with_groups(m, attention(4), attention(4, 8)), machine(36, 6, 16)
    ),
    "mamba": (lambda m: with_mamba(m, 16), big(48)),
    "mamba, preemptions": (lambda m: with_mamba(m, 16), big(48, 22)),
    "mamba, drafts": (mamba_and_drafts, big(64)),
}  # fmt: skip


@pytest.fixture(params=list(HYBRIDS))
def profile(request, monkeypatch):
    shape, size = HYBRIDS[request.param]
    shape(monkeypatch)
    return size


@pytest.mark.parametrize("feed", [plain, prefixes])
@pytest.mark.parametrize(
    ("ahead", "pair"), [(0, 0), (1, 0), (0, 1)], ids=["async", "ahead", "sync"]
)
def test_without_a_controller_it_is_scheduled_exactly_as_by_stock_vllm(profile, feed, ahead, pair):
    stock, hooked = (
        Shaped(cls, profile=profile, ahead=ahead, prefix_caching=True) for cls in SCHEDULERS[pair]
    )
    for arm in (stock, hooked):
        feed(arm)
        arm.drain()
    assert hooked.steps == stock.steps
    assert (hooked.got, hooked.finished) == (stock.got, stock.finished)
    hooked.check_books()


@pytest.mark.parametrize("feed", [plain, prefixes])
@pytest.mark.parametrize("policy", ["slide", "fair"])
@pytest.mark.parametrize(("ahead", "pair"), [(1, 0), (0, 1)], ids=["ahead", "sync"])
def test_with_a_policy_and_all_rules_everybody_is_served(profile, feed, policy, ahead, pair):
    settings = EngineSettings(contract=shares({}, {"t0": 0.3}), bucket_s=0.1, max_wait_s=1.0)
    engine = Shaped(
        SCHEDULERS[pair][1], settings, profile=profile, ahead=ahead, prefix_caching=True
    )
    engine.decide(policy, **ALL_RULES)
    feed(engine)
    engine.drain()
    engine.check_books()
    assert set(engine.finished.values()) <= {"stop", "length"}


def prefill_steps(engine: Shaped, name: str, steps: int) -> list[int]:
    """The tokens that a prompt gets in each of the next steps until it is through."""
    found: list[int] = []
    for _ in range(steps):
        if engine.got[name]:
            break
        engine.step()
        found.append(dict(engine.steps[-1][0]).get(name, 0))
    return found


@pytest.mark.parametrize("policy", ["fcfs", "edf"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "waiting"])
def test_a_budget_between_a_block_and_a_block_beside_the_decodes_lets_prompts_move(
    monkeypatch, policy, begun
):
    """Eight decodes and a budget of 20 leave 12 tokens, and a block has 16: vLLM takes none."""
    with_mamba(monkeypatch, 16)
    engine = Shaped(profile=big(), prefix_caching=True)
    for i in range(8):
        engine.add(f"d{i}", 4, 140)
    engine.step(3)
    if begun:
        engine.add("long", 100, 3)
        engine.step()
    engine.decide(policy, token_budget=20)
    if not begun:
        engine.add("long", 100, 3)
    given = prefill_steps(engine, "long", 40)
    assert engine.got["long"] > 0, given
    # Of each step 12 tokens were left for it, and it got no more than that in the long run.
    assert len(given) >= (sum(given) - 16) / 12
    assert all(len(step[0]) >= 8 for step in engine.steps[4:]), "every decode in every step"
    engine.drain()
    engine.check_books()


def test_slack_is_saved_up_until_it_makes_a_block(monkeypatch):
    """The tightest decode leaves 10 tokens a step, so a block of 16 comes in every second one."""
    with_mamba(monkeypatch, 16)
    engine = Shaped(profile=big(), prefix_caching=True, cost=COST)
    engine.decide("fcfs", follow_slack=True)
    monkeypatch.setattr("tests.serving.shaped_scheduler.STEP_S", 0.014)
    for i in range(8):
        engine.add(f"d{i}", 4, 140, slo_tpot_ms=14)
    engine.step(3)
    engine.add("long", 100, 3)
    given = prefill_steps(engine, "long", 60)
    assert engine.got["long"] > 0, given
    assert given.count(0) >= len(given) / 4, "not in each step"
    engine.drain()


@pytest.mark.parametrize("shape", ["one", "window", "mamba"])
def test_blocks_are_counted_over_all_groups(monkeypatch, shape):
    size = 16 if shape == "mamba" else 4
    if shape == "window":
        with_groups(monkeypatch, attention(4), attention(4, 8))
    if shape == "mamba":
        with_mamba(monkeypatch, 16)
    engine = Shaped(profile=EngineProfile("p", "for tests", COST, 8, 512, 400, size, 160))
    prompts = [5, 40, 90, 100]
    for i, tokens in enumerate(prompts):
        engine.add(f"r{i}", tokens, 30)
    engine.step(9)
    used, held = compat.used_blocks(engine.scheduler), [tokens + 8 for tokens in prompts]
    core = engine.scheduler.queue.core
    groups = len(core.groups)
    assert groups == (1 if shape == "one" else 2)
    assert abs(blocks_of_batch(core, float(sum(held)), 4) - used) <= 3 * groups
    each = sum(blocks_of(core, float(tokens)) for tokens in held)
    assert used <= each <= used + 4 * (groups - 1)
    full = sum(math.ceil(tokens / size) for tokens in held)
    assert used == full if shape == "one" else used > full + 3


def test_a_kv_spec_that_cannot_give_its_size_does_not_stop_the_start(monkeypatch, caplog):
    def unknown(self: object, config: object) -> int:
        raise NotImplementedError("a platform's own spec")

    monkeypatch.setattr(FullAttentionSpec, "max_memory_usage_bytes", unknown)
    with caplog.at_level("WARNING", logger="vllm.hmas"):
        engine = Shaped(profile=machine(100, 8, 64))
    (said,) = [r.getMessage() for r in caplog.records if "one group" in r.getMessage()]
    assert "a platform's own spec" in said
    engine.decide("fcfs", pace_decodes=True)
    engine.add("r", 20, 20)
    engine.drain()
    engine.check_books()



def test_the_engine_says_at_start_that_prompts_move_by_whole_blocks(monkeypatch, caplog):
    with_mamba(monkeypatch, 16)
    with caplog.at_level("WARNING", logger="vllm.hmas"):
        Shaped(profile=big(), prefix_caching=True)
    said = [r.getMessage() for r in caplog.records if "whole blocks of 16 tokens" in r.getMessage()]
    assert len(said) == 1

"""What does the hook make of prompts whose beginning the KV cache holds?"""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.metrics.stats import PrefixCacheStats
from vllm.v1.request import Request

from serving.contracts import Outcome
from serving.contracts.settings import EngineSettings
from serving.engines.virtual_vllm import SharedBlocks
from tests.serving.driven_scheduler import machine
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import Shaped

ROOMY = machine(200, 8, 16)
PREFIX, OTHER = list(range(2, 26)), list(range(40, 64))


def lane_work(engine: Shaped) -> dict[str, float]:
    return {lane.tenant: lane.work for lane in engine.scheduler.queue.lanes}


def order_of(engine: Shaped) -> list[str]:
    """Names in the order of their first admission."""
    return [name for step in engine.steps for name in step[1]]


def test_cached_tokens_fall_out_of_the_prompt_and_prefix_serves_the_longest_first():
    order = {}
    for policy in ("fcfs", "prefix"):
        engine = Shaped(profile=ROOMY, prefix_caching=True)
        engine.add("first", [*PREFIX, 90], 2)
        engine.drain()
        engine.decide(policy, max_active_requests=1)
        engine.add("none", [*OTHER, 91], 2)
        engine.add("half", [*PREFIX[:12], *OTHER, 92], 2)
        engine.add("whole", [*PREFIX, 93], 2)
        found = [
            (engine.fact(name, "cached_tokens"), engine.fact(name, "prompt_tokens"))
            for name in ("half", "whole")
        ]
        assert found == [(12, 25), (24, 1)]
        engine.drain()
        order[policy] = order_of(engine)[1:]
        engine.check_books()
    assert order == {"fcfs": ["none", "half", "whole"], "prefix": ["whole", "half", "none"]}


def test_the_look_up_counts_in_no_statistics_of_vllm():
    counted = {}
    for policy in ("fcfs", "prefix"):
        engine = Shaped(profile=ROOMY, prefix_caching=True)
        manager = engine.scheduler.kv_cache_manager
        manager.log_stats, manager.prefix_cache_stats = True, PrefixCacheStats()
        engine.decide(policy)
        for i in range(6):
            engine.add(f"r{i}", [*PREFIX, 80 + i], 2)
        engine.step(2)
        engine.scheduler.hmas_snapshot()
        stats = manager.prefix_cache_stats
        counted[policy] = (stats.requests, stats.queries, stats.hits)
        manager.log_stats = False
        engine.drain()
    assert counted["prefix"] == counted["fcfs"]
    assert 0 < counted["prefix"][0] <= 6, "one per admission, none for looking"


def test_a_request_that_must_not_read_the_cache_has_nothing_cached():
    """Prompt log-probabilities need the whole prompt computed."""
    engine = Shaped(profile=ROOMY, prefix_caching=True)
    engine.add("first", PREFIX, 2)
    engine.drain()
    request = engine.add("second", PREFIX, 2)
    assert engine.scheduler._cached_tokens(request) == 20
    request.skip_reading_prefix_cache = True
    assert engine.scheduler._cached_tokens(request) == 0


def test_the_tenant_pays_for_what_it_really_prefills():
    """Skipped for a grammar while somebody else fills the cache: no charge is left over."""
    engine = Shaped(profile=machine(200, 8, 64), prefix_caching=True)
    engine.decide("fair")
    engine.add("a", PREFIX, 2, tenant="a")
    engine.add("g", PREFIX, 2, grammar=True, tenant="b")
    engine.step(5)
    assert lane_work(engine)["b"] == 0.0
    engine.compiled("g")
    engine.drain()
    assert lane_work(engine)["b"] == 4 + 2, "the block not cached, and one decode"


def test_arrivals_outcomes_and_totals_say_how_much_of_the_prompt_was_cached():
    engine = Shaped(profile=ROOMY, prefix_caching=True)
    engine.add("first", [*PREFIX, 90], 2, tenant="a")
    engine.drain()
    engine.add("second", [*PREFIX[:12], *OTHER], 2, tenant="b")
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 24
    engine.drain()
    page = engine.scheduler.hmas_journal(0, 100)
    assert [(a.prompt_tokens, a.cached_tokens) for a in page.arrivals] == [(25, 0), (36, 12)]
    assert [(o.prompt_tokens, o.cached_tokens) for o in page.outcomes] == [(25, 0), (36, 12)]
    shot = engine.scheduler.hmas_snapshot()
    totals = {row.tenant: (row.prompt_tokens, row.cached_prompt_tokens) for row in shot.counters}
    assert totals == {"a": (25, 0), "b": (36, 12)}
    assert shot.envelope.prefix_caching


def test_a_preempted_request_is_not_cached_prompt():
    """It finds its own blocks again; its outcome says what others had left for it."""
    engine = Shaped(profile=ROOMY, prefix_caching=True)
    engine.add("r", PREFIX, 6)
    engine.step(2)
    engine.scheduler.reset_prefix_cache(reset_running_requests=True)
    engine.drain()
    (outcome,) = engine.scheduler.hmas_journal(0, 100).outcomes
    assert (outcome.preemptions, outcome.cached_tokens) == (1, 0)


def test_a_prefix_cached_while_requests_wait_is_known_before_their_turn():
    """All come at once, so at their arrival nothing was cached, whatever the policy."""
    engine = Shaped(profile=ROOMY, prefix_caching=True)
    engine.decide("edf", max_active_requests=1)
    for i in range(6):
        engine.add(f"r{i}", [*PREFIX, 80 + i], 8)
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 6 * 25
    engine.step(7)
    assert engine.scheduler.hmas_snapshot().queue.waiting_tokens == 5 * 1
    assert engine.scheduler.queue.backlog_tokens == 5 * 1
    engine.drain()
    engine.check_books()


def test_a_request_that_is_skipped_in_each_step_is_looked_up_a_few_times_a_step(monkeypatch):
    engine = Shaped(profile=ROOMY, prefix_caching=True)
    looked, coordinator = list[Any](), engine.scheduler.kv_cache_manager.coordinator
    find = coordinator.find_longest_cache_hit
    for i in range(30):
        engine.add(f"g{i}", [*PREFIX, 80 + i], 2, grammar=True)

    def counting(hashes: Any, most: int) -> Any:
        looked.append(hashes)
        return find(hashes, most)

    monkeypatch.setattr(coordinator, "find_longest_cache_hit", counting)
    engine.step(10)
    assert len(looked) <= 10 * 2, "30 a step before"


def test_blocks_that_requests_share_count_once_in_the_predicted_peak():
    peaks = {}
    for caching in (False, True):
        engine = Shaped(profile=machine(200, 8, 64), prefix_caching=caching)
        engine.add("first", PREFIX, 12)
        engine.step(3)
        for i in range(5):
            engine.add(f"r{i}", [*PREFIX, 80 + i], 12)
        engine.step(4)
        shot = engine.scheduler.hmas_snapshot()
        assert shot.batch.running == 6
        peaks[caching] = shot.kv.predicted_peak_blocks
    assert peaks[False] - peaks[True] == pytest.approx(5 * 6, abs=3), "6 blocks, five times"


def test_every_request_is_charged_what_was_computed_for_it_and_floors_follow():
    settings = EngineSettings(contract=shares({}, {"b": 0.5}))
    engine = Shaped(profile=machine(200, 8, 64), prefix_caching=True, settings=settings)
    engine.decide("fair")
    engine.add("a", PREFIX, 2, tenant="a")
    engine.add("b", PREFIX, 2, tenant="b")  # in the same step: its blocks are there when it starts
    engine.drain()
    computed = {o.tenant: o.prompt_tokens - o.cached_tokens for o in outcomes(engine)}
    work = lane_work(engine)
    assert work == {tenant: tokens + 2 for tenant, tokens in computed.items()}
    assert sum(computed.values()) < 2 * len(PREFIX)


def outcomes(engine: Shaped) -> list[Outcome]:
    return list(engine.scheduler.hmas_journal(0, 1000).outcomes)


@given(
    prompts=st.lists(
        st.tuples(st.lists(st.integers(0, 2), max_size=3), st.integers(1, 1600)),
        min_size=2, max_size=4,
    ),
    size=st.sampled_from([4, 16, 24, 128, 1024]),
)  # fmt: skip
@example(prompts=[([5, 7], 1100), ([6, 7], 1100)], size=16)
def test_virtual_blocks_have_one_name_where_vllm_gives_their_tokens_one_hash(prompts, size):
    """Tokens as the load generator draws them: equal blocks for equal ids, the rest unique."""
    init_none_hash(sha256)
    blocks, real, virtual = SharedBlocks(size), list[Any](), list[Any]()
    for i, (prefix, tokens) in enumerate(prompts):
        ids = [token for block in prefix for token in [100 + block] * 512]
        ids = (ids + [200 + i] * tokens)[:tokens]
        hasher = get_request_block_hasher(size, sha256)
        request = Request(f"r{i}", ids, SamplingParams(max_tokens=60), None, block_hasher=hasher)
        request.append_output_token_ids([300 + i] * 50)
        real += request.block_hashes
        virtual += blocks.names(prefix, tokens, 50)
    assert [a == b for a in real for b in real] == [a == b for a in virtual for b in virtual]

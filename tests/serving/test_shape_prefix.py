"""What does the hook make of prompts whose beginning the KV cache holds?"""

from vllm.v1.metrics.stats import PrefixCacheStats

from tests.serving.driven_scheduler import machine
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
        half, whole = (engine.add(n, t, 2) for n, t in [
            ("half", [*PREFIX[:12], *OTHER, 92]), ("whole", [*PREFIX, 93]),
        ])  # fmt: skip
        views = [engine.scheduler.queue._entries[r.request_id].view for r in (half, whole)]
        assert [(v.cached_tokens, v.prompt_tokens) for v in views] == [(12, 25), (24, 1)]
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

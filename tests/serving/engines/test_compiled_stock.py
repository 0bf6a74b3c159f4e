"""Does the compiled engine do in each step what vLLM's own scheduler does?

`pytest tests/serving/engines -s` prints how much was compared; HMAS_EXAMPLES sets the random
workloads, and real traces are compared where HMAS_TRACES names their folder.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evals.requests.azure_files import find_azure
from evals.requests.readers import read_azure
from serving.contracts import TraceRequest
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import columns
from serving.engines.protocol import EngineUnavailable
from serving.engines.served import FINISHES
from tests.serving.engines.both_engines import (
    SETTINGS,
    Case,
    by_vllm,
    compiled,
    difference,
    drawn,
    machine,
    prioritised,
    that_fit,
)
from tests.serving.samples import sessions

compared = {"examples": 0, "steps": 0, "requests": 0, "preemptions": 0, "cached_tokens": 0}


def hold(case: Case) -> None:
    """Both engines tell the same story."""
    expected = by_vllm(case)
    assert difference(expected, compiled(case)) == ""
    compared["examples"] += 1
    compared["steps"] += len(expected.steps)
    compared["requests"] += len(expected.outcomes)
    compared["preemptions"] += expected.preemptions
    compared["cached_tokens"] += sum(one.cached_tokens for one in expected.outcomes)


@pytest.fixture(scope="module", autouse=True)
def tell():
    yield
    print("\ncompared with vLLM's scheduler:", compared)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    block_size = draw(st.sampled_from((16, 48, 128)))
    caching = draw(st.booleans())
    profile = machine(
        draw(st.integers(8, 60)), draw(st.integers(1, 10)), draw(st.sampled_from((16, 100, 700))),
        block_size=block_size, prefix_caching=caching,
        max_model_len=draw(st.sampled_from((600, 3000))),
    )  # fmt: skip
    scale = profile.kv_blocks * block_size
    requests = drawn(
        draw(st.integers(0, 10_000)), draw(st.integers(1, 40)),
        draw(st.sampled_from((2.0, 20.0, 200.0))), max(2, scale // draw(st.integers(3, 12))),
        draw(st.sampled_from((2, 20, 100))), topics=draw(st.sampled_from((0, 1, 2))),
    )  # fmt: skip
    until_s = draw(st.sampled_from((None, 0.7, 25.0)))
    if until_s is None:
        requests = that_fit(requests, profile)
    by_priority = draw(st.booleans())
    if by_priority:
        requests = prioritised(requests, draw(st.integers(0, 1000)))
    return Case(
        profile, requests, draw(st.sampled_from((0, 0, 7, 64))), until_s,
        tick_s=draw(st.sampled_from((0.0, 0.0, 0.3))), by_priority=by_priority,
    )  # fmt: skip


@settings(
    max_examples=int(os.environ.get("HMAS_EXAMPLES", "40")), deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(cases())
def test_random_workloads_on_random_machines(case):
    hold(case)


@pytest.mark.parametrize("caching", [False, True], ids=["stock", "prefixes"])
@pytest.mark.parametrize(
    ("kv_blocks", "max_active", "budget", "threshold"),
    [(20_000, 64, 2048, 0), (700, 128, 512, 0), (700, 128, 2048, 200), (250, 300, 300, 0)],
)
def test_longer_workloads_roomy_and_tight(kv_blocks, max_active, budget, threshold, caching):
    profile = machine(kv_blocks, max_active, budget, prefix_caching=caching)
    requests = that_fit(drawn(7, 250, 40.0, 500, 60, topics=3 * caching), profile)
    case = Case(profile, requests, threshold)
    before = compared["preemptions"], compared["cached_tokens"]
    hold(case)
    if kv_blocks < 1000:
        assert compared["preemptions"] > before[0], "the KV cache must run out"
    if caching:
        assert compared["cached_tokens"] > before[1], "prompts must begin alike"


@pytest.mark.parametrize("seed", range(6))
def test_priority_scheduling_preempts_whom_vllm_preempts(seed):
    caching = seed % 2 == 1
    profile = machine(150, 40, (100, 700, 2048)[seed % 3], prefix_caching=caching)
    requests = that_fit(drawn(seed, 150, 30.0, 400, 60, topics=2 * caching), profile)
    case = Case(profile, prioritised(requests, seed), by_priority=True)
    before = compared["preemptions"]
    hold(case)
    assert compared["preemptions"] > before + 3
    assert compiled(case).outcomes != compiled(replace(case, by_priority=False)).outcomes


def test_sessions_share_their_prefixes_and_evict_each_other():
    profile = machine(900, 64, 2048, prefix_caching=True)
    requests = tuple(sessions(250, 25.0, seed=5))
    hold(Case(profile, requests))
    assert compared["cached_tokens"] > 0


@pytest.mark.parametrize("kv_blocks", [25_749, 1_500], ids=["roomy", "tight"])
@pytest.mark.parametrize("rate", [1.0, 6.0])
def test_the_azure_conversation_trace(kv_blocks, rate):
    path = find_azure("azure-conv")
    if path is None:
        pytest.skip("HMAS_TRACES names no folder with the Azure trace")
    profile = machine(kv_blocks, 256, 2048)
    first = read_azure(path).requests[:600]
    requests = tuple(
        replace(one, arrival_s=(one.arrival_s - first[0].arrival_s) / rate) for one in first
    )
    hold(Case(profile, requests))


def test_a_run_ends_once_those_that_matter_have_left():
    profile = machine(700, 8, 512)
    requests = that_fit(drawn(3, 60, 10.0, 200, 30), profile)
    case = Case(profile, requests, until_left=("r5", "r9"))
    hold(case)
    assert {one.finish for one in compiled(case).outcomes} >= {"stop", "unfinished"}


def test_what_no_cache_can_hold_waits_until_the_end_or_is_named():
    profile = machine(10, 4, 512)
    requests = (TraceRequest(0.0, 100, 5), TraceRequest(0.1, 500, 5), TraceRequest(0.2, 50, 5))
    hold(Case(profile, requests, until_s=20.0))
    engine = CompiledEngine(profile, SETTINGS, stock=True)
    with pytest.raises(RuntimeError, match=r"r1 has 500 tokens.*at most 144"):
        engine.run(requests)


def test_columns_say_what_outcomes_say():
    profile = machine(500, 16, 512, prefix_caching=True, max_model_len=2000)
    requests = drawn(11, 120, 20.0, 400, 40, topics=2)
    engine = CompiledEngine(profile, SETTINGS, stock=True)
    served = engine.run_columns(columns(requests, profile), until_s=2.0)
    outcomes = served.outcomes(requests, SETTINGS)
    assert {one.finish for one in outcomes} == set(FINISHES)
    for name in ("queue_s", "ttft_s", "tpot_s", "e2e_s", "finished_s"):
        found = [None if value != value else value for value in getattr(served, name).tolist()]
        assert found == [getattr(one, name) for one in outcomes], name
    for name in ("output_tokens", "preemptions", "cached_tokens"):
        assert getattr(served, name).tolist() == [getattr(one, name) for one in outcomes], name
    assert [FINISHES[code] for code in served.finish] == [one.finish for one in outcomes]


def test_progress_is_told_and_stock_vllm_takes_no_decision():
    profile = machine(500, 16, 512)
    told: list[int] = []
    engine = CompiledEngine(profile, SETTINGS, stock=True)
    engine.run(drawn(1, 30, 20.0, 100, 10), on_progress=told.append)
    assert told[-1] == 30
    with pytest.raises(EngineUnavailable, match="stock=False"):
        engine.snapshot()

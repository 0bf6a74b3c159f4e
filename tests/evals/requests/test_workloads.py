"""Are workloads brought to their load, cut to the machine, and given tenants as asked?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.columns import LazyRequests, RequestColumns
from evals.requests.offer import offer
from evals.requests.rows import times, with_tenants
from evals.requests.scenario import build_workload
from evals.requests.trace import WorkloadError
from evals.suite.suite import Suite
from evals.suite.traffic_spec import TenantSpec
from serving.contracts import TraceRequest
from tests.evals.samples import offered

traces = st.lists(
    st.builds(TraceRequest, st.floats(0, 1e5), st.integers(1, 20_000), st.integers(1, 4000)),
    min_size=2,
    max_size=50,
).map(lambda requests: tuple(sorted(requests, key=lambda r: r.arrival_s)))
LENGTHS = {"prompt": {"p50": 100, "p90": 300}, "output": {"p50": 20, "p90": 60}}


def suite(*changes, minutes=4, **keys):
    chats = {
        "rate_rps": 0.2, "turns": 5, "think_s": {"p50": 10, "p90": 30}, **LENGTHS,
    }  # fmt: skip
    return Suite.model_validate(
        {
            "name": "s", "half": "any", "minutes": minutes, "warmup_s": 60, "loads": [1],
            "arms": ["vllm-fcfs"],
            "tenants": [
                {"name": "a", "slo_class": "interactive",
                 "traffic": {"rate_rps": 2, "arrival_cv": 3, **LENGTHS}},
                {"name": "b", "slo_class": "document", "sessions": chats},
            ],
            "scenarios": [{"name": "x", "trace": "synthetic", "changes": changes}],
            **keys,
        }
    )  # fmt: skip


def workload(*changes, seed=0, **keys):
    built = suite(*changes, **keys)
    return build_workload(built, built.scenarios[0], seed, 16_384)


@given(requests=traces, factor=st.floats(0.001, 3), max_model_len=st.integers(2, 8192))
def test_scaled_and_clipped_lengths_fit_and_none_is_empty(requests, factor, max_model_len):
    scaled = RequestColumns.of(requests).scaled(factor)
    columns, clipped = scaled.clipped(max_model_len)
    fitted = columns.requests()
    assert len(fitted) == len(requests)
    assert all(r.prompt_tokens >= 1 and r.output_tokens >= 1 for r in fitted)
    assert all(r.prompt_tokens + r.output_tokens <= max_model_len for r in fitted)
    assert clipped == sum(a != b for a, b in zip(scaled.requests(), fitted, strict=True))


def test_a_shorter_prompt_keeps_only_the_blocks_it_holds():
    request = TraceRequest(0.0, 1500, 10, prefix=(1, 2, 3))
    (shorter,) = RequestColumns.of([request]).scaled(0.5).requests()
    assert shorter.prefix == (1, 2)


@given(requests=traces)
def test_columns_hold_what_requests_are_and_lazy_ones_are_the_same(requests):
    columns = RequestColumns.of(requests)
    assert columns.requests() == requests
    lazy = LazyRequests(columns)
    assert (lazy[0], lazy[-1], len(lazy)) == (requests[0], requests[-1], len(requests))
    assert tuple(lazy) == tuple(lazy[:]) == requests


@pytest.mark.parametrize("rate_rps", [3.0, 40.0])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("changes", [(), ({"factor": 3.0, "at": 0.5},)])
def test_what_counts_comes_at_the_rate_that_was_asked_for(rate_rps, seed, changes):
    built = workload(*changes, seed=seed)
    got = offer(built, rate_rps)
    arrivals_s = np.array([one.arrival_s for one in got.requests])
    counted = ((arrivals_s >= 60) & (arrivals_s <= 300)).sum() / 240
    assert counted == pytest.approx(got.counted_rps)
    assert counted == pytest.approx(rate_rps, rel=0.05)
    assert 0 <= arrivals_s[0] <= arrivals_s[-1] <= 420


@pytest.mark.parametrize(("changes", "after"), [((), 1.0), (({"factor": 3.0, "at": 0.5},), 1.5)])
def test_traffic_goes_on_after_what_counts_as_it_was_at_its_end(changes, after):
    got = offer(workload(*changes, tail_s=600), 20.0)
    arrivals_s = np.array([one.arrival_s for one in got.requests])
    for from_s in (300, 600):
        rate_rps = ((arrivals_s >= from_s) & (arrivals_s < from_s + 300)).sum() / 300
        assert rate_rps == pytest.approx(20.0 * after, rel=0.1)
    assert got.counted_rps == pytest.approx(20.0, rel=0.02)


def test_a_step_and_a_flash_crowd_are_where_they_should_be_and_are_expected():
    step = {"factor": 2.0, "at": 0.5}
    crowd = {"factor": 4.0, "at": 0.25, "until": 0.5, "over": 0.25}
    built = workload(step, crowd, {"factor": 0.0, "until": 0.5, "tenant": "b"})
    got = offer(built, 10.0)
    assert got.moments_s == (120, 180, 240)
    expected = [(one.factor, one.from_s, one.tenant) for one in got.expected]
    assert expected == [(4.0, 150, None), (2.0, 180, None), (0.25, 210, None)]
    assert all(one.arrival_s >= 180 for one in got.requests if one.tenant == "b")


def test_a_workload_that_sends_nothing_is_an_error():
    with pytest.raises(WorkloadError, match="x: no requests from synthetic tenants"):
        offer(workload({"factor": 0.0}), 3.0)


def test_a_trace_keeps_its_clock_and_its_share():
    columns = RequestColumns.of(offered(*range(4000)))
    rng = np.random.default_rng(1)
    fewer, more = (times(columns, 4000.0, factor, rng) for factor in (0.25, 2.5))
    assert len(fewer) == pytest.approx(1000, rel=0.1)
    assert set(fewer.arrival_s) <= set(columns.arrival_s)
    assert len(more) == pytest.approx(10_000, rel=0.05)
    assert (np.diff(more.arrival_s) >= 0).all()
    assert more.arrival_s[-1] < 4000


def test_tenants_follow_their_weights_and_the_seed():
    columns = RequestColumns.of(offered(*range(4000)))
    tenants = [
        TenantSpec(name="a", slo_class="interactive", weight=3, priority=1),
        TenantSpec(name="none", slo_class="batch", weight=0),
        TenantSpec(name="b", slo_class="document"),
    ]
    one, same, other = (with_tenants(columns, tenants, seed).requests() for seed in (5, 5, 6))
    assert sum(r.tenant == "a" for r in one) == pytest.approx(3000, rel=0.05)
    assert {(r.tenant, r.slo_class, r.priority) for r in one} == {
        ("a", "interactive", 1),
        ("b", "document", 0),
    }
    assert one == same != other

"""Are workloads cut, scaled and given tenants as asked, and is the twin like its trace?"""

import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.scaling import (
    WorkloadError,
    clip_lengths,
    scale_lengths,
    scale_to_rate,
    span_s,
    thin,
)
from evals.requests.stand_in import AZURE_2023, synthetic_stand_in
from evals.requests.synthetic import SyntheticTenant, synthetic_tenants
from evals.requests.tenants import TenantShare, assign_tenants
from evals.suite.shapes import Lengths
from serving.contracts import TraceRequest
from tests.evals.samples import offered

traces = st.lists(
    st.builds(TraceRequest, st.floats(0, 1e5), st.integers(1, 20_000), st.integers(1, 4000)),
    min_size=2,
    max_size=50,
).map(lambda requests: tuple(sorted(requests, key=lambda r: r.arrival_s)))


@given(requests=traces, rate_rps=st.floats(0.01, 1000))
def test_time_scaling_hits_the_rate_and_keeps_the_shape(requests, rate_rps):
    if requests[-1].arrival_s - requests[0].arrival_s < 1e-3:
        return
    scaled = scale_to_rate(requests, rate_rps)
    assert len(scaled) / span_s(scaled) == pytest.approx(rate_rps)
    shape = [(r.arrival_s - requests[0].arrival_s) / span_s(requests) for r in requests]
    assert [r.arrival_s / span_s(scaled) for r in scaled] == pytest.approx(shape, abs=1e-6)


def test_a_trace_without_a_span_has_no_rate():
    with pytest.raises(WorkloadError, match="take more requests"):
        span_s(offered(3.0, 3.0))


@given(requests=traces, factor=st.floats(0.001, 3), max_model_len=st.integers(2, 8192))
def test_scaled_and_clipped_lengths_fit_and_none_is_empty(requests, factor, max_model_len):
    fitted, clipped = clip_lengths(scale_lengths(requests, factor), max_model_len)
    assert len(fitted) == len(requests)
    assert all(r.prompt_tokens >= 1 and r.output_tokens >= 1 for r in fitted)
    assert all(r.prompt_tokens + r.output_tokens <= max_model_len for r in fitted)
    scaled = scale_lengths(requests, factor)
    assert clipped == sum(a != b for a, b in zip(scaled, fitted, strict=True))


def test_a_shorter_prompt_keeps_only_the_blocks_it_holds():
    request = TraceRequest(0.0, 1500, 10, prefix=(1, 2, 3))
    assert scale_lengths([request], 0.5)[0].prefix == (1, 2)


def test_thinning_keeps_the_clock_and_about_the_share():
    requests = offered(*range(4000))
    kept = thin(requests, 0.25, seed=1)
    assert set(kept) <= set(requests)
    assert len(kept) == pytest.approx(1000, rel=0.1)
    assert thin(requests, 0.25, seed=1) == kept
    assert thin(requests, 0.25, seed=2) != kept
    with pytest.raises(ValueError, match="keep"):
        thin(requests, 0.0, seed=1)


def test_tenants_follow_their_weights_and_the_seed():
    requests = offered(*range(4000))
    shares = [
        TenantShare("a", "interactive", 3, priority=1),
        TenantShare("none", "batch", 0),
        TenantShare("b", "document", 1),
    ]
    assigned = assign_tenants(requests, shares, seed=5)
    counts = [sum(r.tenant == name for r in assigned) for name in ("a", "none", "b")]
    assert counts[0] == pytest.approx(3000, rel=0.05)
    assert counts[1] == 0
    assert {(r.tenant, r.slo_class, r.priority) for r in assigned} == {
        ("a", "interactive", 1),
        ("b", "document", 0),
    }
    assert assigned == assign_tenants(requests, shares, seed=5)
    assert assigned != assign_tenants(requests, shares, seed=6)


@pytest.mark.parametrize("name", AZURE_2023)
@pytest.mark.parametrize("seed", [0, 7])
def test_the_twin_has_the_published_statistics(name, seed):
    published = AZURE_2023[name]
    requests = synthetic_stand_in(name, seed)
    assert len(requests) == published.requests
    assert span_s(requests) == pytest.approx(published.span_s)
    for stats, values in (
        (published.prompt, sorted(r.prompt_tokens for r in requests)),
        (published.output, sorted(r.output_tokens for r in requests)),
    ):
        assert statistics.mean(values) == pytest.approx(stats.mean, rel=0.02)
        assert statistics.median(values) == pytest.approx(stats.p50, rel=0.02)
        assert values[int(0.9 * len(values))] == pytest.approx(stats.p90, rel=0.02)
        assert values[-1] == stats.most
        assert values[0] >= 1


def test_the_twin_depends_on_the_seed_and_on_nothing_else():
    assert synthetic_stand_in("azure-code", 1) == synthetic_stand_in("azure-code", 1)
    assert synthetic_stand_in("azure-code", 1) != synthetic_stand_in("azure-code", 2)


def test_synthetic_tenants_have_their_rates_lengths_and_burstiness():
    calm = SyntheticTenant("calm", "document", 2.0, Lengths(1000, 3000, 9000), Lengths(10, 30, 99))
    bursty = SyntheticTenant(
        "bursty", "interactive", 6.0, Lengths(100, 200, 900), Lengths(50, 90, 400), arrival_cv=4.0
    )
    requests = synthetic_tenants([calm, bursty], 8000, seed=3)
    arrivals = [r.arrival_s for r in requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[0] == 0.0
    own = {name: [r for r in requests if r.tenant == name] for name in ("calm", "bursty")}
    assert len(own["calm"]) / arrivals[-1] == pytest.approx(2.0, rel=0.15)
    assert statistics.median(r.prompt_tokens for r in own["calm"]) == pytest.approx(1000, rel=0.1)
    for name, cv in (("calm", 1.0), ("bursty", 4.0)):
        times = [r.arrival_s for r in own[name]]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(cv, rel=0.15)

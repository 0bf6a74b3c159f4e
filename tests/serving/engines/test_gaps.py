"""Is the p99 of gaps between tokens within 0.5%, and are late ones counted one by one?"""

import numpy as np
import pytest

from serving.contracts import SLO, Contract, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.gaps import BINS, LEAST_S, add_gaps, gap_percentile
from serving.engines.offered import columns
from tests.serving.engines.both_engines import drawn, machine


@pytest.mark.parametrize("percent", [50, 99, 100])
def test_a_percentile_is_within_half_a_percent_of_the_true_one(percent):
    gaps_s = np.exp(np.random.default_rng(1).normal(-3.5, 1.5, 5000))
    histogram = np.zeros(BINS, np.int64)
    add_gaps(histogram, gaps_s)
    true_s = np.percentile(gaps_s, percent, method="inverted_cdf")
    assert gap_percentile(histogram, percent) == pytest.approx(true_s, rel=0.0051)


def test_what_lies_outside_the_bins_is_in_the_outer_ones_and_no_gap_has_no_percentile():
    histogram = np.zeros(BINS, np.int64)
    assert gap_percentile(histogram, 99) is None
    add_gaps(histogram, np.array([0.0, LEAST_S / 2, 1e9]))
    assert (histogram[0], histogram[-1], histogram.sum()) == (2, 1, 3)


def test_one_stall_among_fewer_than_a_hundred_gaps_is_a_miss_and_among_more_is_none():
    """A prompt of 20,000 tokens stalls a short answer and a long one, for 2 s each."""
    settings = EngineSettings(contract=Contract(classes={"batch": ClassTerms(itl_ms=1000)}))
    profile = machine(5000, 8, 32_768, max_model_len=32_768)
    requests = (TraceRequest(0.0, 10, 50), TraceRequest(0.0, 10, 102), TraceRequest(0.1, 20_000, 1))
    engine = CompiledEngine(profile, settings, stock=True)
    engine.gaps_of_s = 0.0, 1.0
    short, long, _ = engine.run(requests)
    assert (short.late_gaps, short.miss, long.late_gaps, long.met) == (1, "itl", 1, True)
    assert engine.gap_counts.sum() == 49 + 101
    shortest = CompiledEngine(profile, settings, stock=True).run((*requests[:1], requests[2]))[0]
    assert shortest.miss == "itl", "also where nobody asks for all gaps"


def test_columns_count_a_missed_itl_as_outcomes_do():
    targets = {"interactive": ClassTerms(itl_ms=12), "batch": ClassTerms(itl_ms=45)}
    settings = EngineSettings(contract=Contract(classes=targets))
    profile = machine(500, 16, 512)
    requests = drawn(11, 120, 20.0, 400, 40)
    served = CompiledEngine(profile, settings, stock=True).run_columns(columns(requests, profile))
    outcomes = served.outcomes(requests, settings)
    assert served.late_gaps.tolist() == [one.late_gaps for one in outcomes]
    met = served.met(np.full((len(requests), 3), np.inf))
    assert met.tolist() == [one.met for one in outcomes]
    assert 20 < sum(one.miss == "itl" for one in outcomes) < 110
    assert outcomes[0].slo in (SLO(itl_ms=12), SLO(itl_ms=45))

"""Do drifting workloads keep every request, hit their rates, and follow the seed alone?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.composition import flooded, mix_streams, superpose, thinned_to_rate
from evals.requests.drift import burst_starts_s, bursty_clock, shifted_clock
from evals.requests.offer import offer
from evals.requests.scaling import span_s
from evals.requests.scenario import Workload
from evals.requests.tenants import TenantShare, assign_tenants, shift_tenants
from evals.suite.drift_spec import ShiftSpec
from evals.suite.shapes import Shift
from evals.suite.suite import Scenario
from serving.contracts import TraceRequest
from tests.evals.samples import offered

SHARES = {"shape": "step", "at": [0.5], "weights": {"default": 2}}
STEADY = offered(*range(1000))  # one per second


def workload(**keys):
    spec = Scenario.model_validate(
        {
            "name": "s", "trace": "azure-conv", "requests": 1000,
            "tenants": [{"name": "default", "slo_class": "batch"}], **keys,
        }
    )  # fmt: skip
    return Workload("s", STEADY, "test", 3, spec)


def in_window(requests, start_s, end_s):
    return sum(start_s <= r.arrival_s < end_s for r in requests)


def test_without_drift_time_is_only_stretched():
    got = offer(workload(), 2.0)
    assert got.moments_s == ()
    times_s = [i * 1000 / 999 / 2 for i in range(1000)]
    assert [r.arrival_s for r in got.requests] == pytest.approx(times_s)


def test_a_step_changes_the_rate_where_it_says_and_keeps_every_request():
    got = offer(workload(rate={"shape": "step", "at": [0.5], "to": 3.0}), 1.0)
    (moment_s,) = got.moments_s
    length_s = span_s(got.requests)
    assert moment_s == pytest.approx(length_s / 2)
    assert len(got.requests) == 1000
    assert in_window(got.requests, 0, moment_s) == pytest.approx(250, abs=2)
    assert in_window(got.requests, moment_s, length_s + 1) == pytest.approx(750, abs=2)


def test_bursts_come_in_seconds_and_at_their_factor():
    burst = {"factor": 4, "for_s": 30, "every_s": 100, "first_s": 40}
    got = offer(workload(burst=burst), 1.0)
    assert got.moments_s == (40, 140, 240, 340, 440, 540)
    assert in_window(got.requests, 140, 170) == pytest.approx(120, abs=2)
    assert in_window(got.requests, 170, 240) == pytest.approx(70, abs=2)
    assert len(got.requests) == 1000


def test_a_flood_adds_one_tenants_requests_and_leaves_the_others():
    requests = tuple(
        TraceRequest(r.arrival_s, 1, 1, tenant="ab"[i % 2]) for i, r in enumerate(STEADY)
    )
    got = flooded(requests, "b", 10, (400.0, 600.0), seed=1)
    assert [r for r in got if r.tenant == "a"] == [r for r in requests if r.tenant == "a"]
    more = len(got) - len(requests)
    assert more == 9 * 100
    assert in_window(got, 400, 600) == 200 + more
    assert got == flooded(requests, "b", 10, (400.0, 600.0), seed=1)
    assert got != flooded(requests, "b", 10, (400.0, 600.0), seed=2)


def test_the_moments_of_a_flood_move_with_the_rate():
    keys = {
        "flood": {"tenant": "default", "factor": 2, "start": 0.5, "end": 0.6},
        "rate": {"shape": "step", "at": [0.5], "to": 2.0},
    }
    got = offer(workload(**keys), 1.0)
    start_s, end_s = (s for s in got.moments_s if s != pytest.approx(span_s(got.requests) / 2))
    assert in_window(got.requests, start_s, end_s) == pytest.approx(200, abs=3)


def test_a_mix_is_of_one_trace_then_of_the_other_at_the_same_rate():
    conv, code = offered(*range(2000), prompt=1), offered(*range(2000), prompt=2)
    mixed = mix_streams(conv, code, Shift((0.5,)), seed=1)
    assert [r.prompt_tokens for r in mixed] == sorted(r.prompt_tokens for r in mixed)
    assert len(mixed) / span_s(mixed) == pytest.approx(1.0, rel=0.02)
    ramp = mix_streams(conv, code, Shift((0.25,), 0.5), seed=1)
    middle = [r.prompt_tokens for r in ramp if 900 <= r.arrival_s < 1100]
    assert np.mean(middle) == pytest.approx(1.5, abs=0.15)
    assert len(ramp) == pytest.approx(2000, rel=0.1)
    assert ramp == mix_streams(conv, code, Shift((0.25,), 0.5), seed=1)


def test_tenants_shift_with_their_weights_and_the_rows_stay():
    before, shifted = (
        assign_tenants(
            STEADY,
            [
                TenantShare("chat", "interactive", 10 - docs),
                TenantShare("docs", "document", docs),
            ],
            seed=3,
        )
        for docs in (1, 9)
    )
    got = shift_tenants(before, shifted, Shift((0.4, 0.8)), seed=3)
    assert [r.arrival_s for r in got] == [r.arrival_s for r in STEADY]
    docs = [r.tenant == "docs" for r in got]
    assert sum(docs[:400]) == pytest.approx(40, abs=20)
    assert sum(docs[400:800]) == pytest.approx(360, abs=20)
    assert sum(docs[800:]) == pytest.approx(20, abs=15)
    assert {r.slo_class for r in got if r.tenant == "docs"} == {"document"}


@pytest.mark.parametrize("rate_rps", [0.25, 1.0, 2.6])
def test_load_by_thinning_keeps_the_traces_clock(rate_rps):
    later = tuple(TraceRequest(r.arrival_s + 500, 1, 1) for r in STEADY)  # rows from mid-trace
    got = thinned_to_rate(later, rate_rps, seed=1)
    assert len(got) == pytest.approx(1000 * rate_rps, rel=0.1)
    assert span_s(got) == pytest.approx(999, rel=0.03)
    assert got[0].arrival_s == 0
    assert [r.arrival_s for r in got] == sorted(r.arrival_s for r in got)


def test_superposition_keeps_order_and_everything():
    one, other = offered(0.0, 2.0, 2.0), offered(1.0, 2.0, prompt=7)
    assert [r.arrival_s for r in superpose(one, other)] == [0, 1, 2, 2, 2]
    assert superpose(one, other)[-1].prompt_tokens == 7


shifts = st.builds(
    Shift,
    st.lists(st.integers(1, 19), min_size=1, max_size=5, unique=True).map(
        lambda at: tuple(share / 20 for share in sorted(at))
    ),
    st.sampled_from([0.0, 0.04]),
)


@given(shift=shifts, to=st.floats(0.1, 10))
def test_a_shifted_clock_is_monotone_and_loses_no_time(shift, to):
    clock = shifted_clock(100.0, shift, to)
    assert (np.diff(clock.steady_s) >= 0).all()
    assert (np.diff(clock.drifting_s) >= 0).all()
    assert clock.steady_s[-1] == pytest.approx(100)
    mean = np.mean(1 + (to - 1) * shift.level((np.arange(20_000) + 0.5) / 20_000))
    assert clock.drifting_s[-1] == pytest.approx(100 / mean, rel=1e-3)


@given(
    factor=st.floats(1.1, 10), for_s=st.floats(1, 60), calm_s=st.floats(1, 100),
    first_s=st.floats(0, 300),
)  # fmt: skip
def test_a_bursty_clock_is_monotone_and_faster_in_bursts_only(factor, for_s, calm_s, first_s):
    shape = (200.0, factor, for_s, for_s + calm_s, first_s)
    clock = bursty_clock(*shape)
    moved = np.array(clock.at(list(np.linspace(0, 200, 2001))))
    assert (np.diff(moved) >= 0).all()
    assert (np.diff(moved) <= 0.1 + 1e-6).all()
    assert moved[-1] == pytest.approx(200.0) or burst_starts_s(*shape)


def test_shapes():
    step = ShiftSpec(shape="step", at=(0.2, 0.6)).shift()
    assert list(step.level(np.array([0.1, 0.2, 0.5, 0.6, 1.0]))) == [0, 1, 1, 0, 0]
    ramp = ShiftSpec(shape="ramp", at=(0.2, 0.6), over=0.2).shift()
    shares = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert list(ramp.level(shares)) == pytest.approx([0, 0.5, 1, 0.5, 0])
    periodic = ShiftSpec(shape="periodic", cycles=2).shift()
    assert list(periodic.level(np.array([0.1, 0.3, 0.6, 0.9]))) == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"shape": "step"}, "takes at"),
        ({"shape": "step", "at": [0.5], "over": 0.1}, "see `over`"),
        ({"shape": "ramp", "at": [0.5]}, "see `over`"),
        ({"shape": "periodic", "at": [0.5], "cycles": 1}, "see `at`"),
        ({"shape": "step", "at": [0.6, 0.5]}, "0.6 is not over by 0.5"),
        ({"shape": "ramp", "at": [0.2, 0.3], "over": 0.2}, "0.2 is not over by 0.3"),
    ],
)
def test_a_shift_that_makes_no_sense_says_which_key(keys, says):
    with pytest.raises(ValueError, match=says):
        ShiftSpec.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"flood": {"tenant": "x", "factor": 2, "start": 0.1, "end": 0.2}}, "no tenant 'x'"),
        ({"flood": {"tenant": "default", "factor": 2, "start": 0.3, "end": 0.2}}, "end must be"),
        ({"burst": {"factor": 3, "for_s": 10, "every_s": 10}}, "every_s must be above"),
        ({"mix": {"trace": "azure-conv", "shape": "step", "at": [0.5]}}, "own trace"),
        (
            {"mix": {"trace": "azure-code", "shape": "step", "at": [0.5]}, "load_by": "thinning"},
            "which undoes `mix` and `shares`",
        ),
        ({"shares": SHARES | {"weights": {"x": 1}}}, "no tenant 'x'"),
        ({"shares": SHARES | {"weights": {"default": 0}}}, "at least one tenant needs a weight"),
        ({"shares": SHARES, "load_by": "thinning"}, "which undoes `mix` and `shares`"),
    ],
)  # fmt: skip
def test_a_drift_that_does_not_fit_the_scenario_is_named(keys, says):
    with pytest.raises(ValueError, match=says):
        workload(**keys)

"""From snapshots and journal pages to states: what must hold whatever the engine reports."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.config import load_config
from hmas_agents.feedback import Feedback
from hmas_agents.situation import Served
from serving.contracts import (
    SLO,
    BatchState,
    CostCoefficients,
    KVState,
    QueueState,
)
from serving.engines.ranks import merge_snapshots
from tests.hmas_agents.samples import arrival, outcome, page, snapshot


@pytest.fixture
def feedback():
    return Feedback(load_config(None))


def steady(feedback, rate_rps=5.0, until_s=300.0, **changes):
    """Requests at a fixed rate that all leave 2 s later, met; one observation a second."""
    events = int(until_s * rate_rps)
    times = [i / rate_rps for i in range(events)]
    for second in range(1, int(until_s) + 1):
        came = [arrival(i, t, **changes) for i, t in enumerate(times) if second - 1 <= t < second]
        left = [
            outcome(i, t, **changes) for i, t in enumerate(times) if second - 1 <= t + 2.0 < second
        ]
        feedback.observe(snapshot(float(second)), page(came, left))


def test_a_state_before_any_observation_is_an_error_of_the_caller(feedback):
    with pytest.raises(RuntimeError, match="observe"):
        feedback.short_state()
    with pytest.raises(RuntimeError, match="observe"):
        feedback.recent_requests(60.0, 10)


def test_states_of_an_idle_engine_say_not_enough_data(feedback):
    feedback.observe(snapshot(1000.0), page())
    short, long = feedback.short_state(), feedback.long_state()
    assert (short.tpot_miss_share, short.ttft_miss_share) == (None, None)
    assert (long.load, long.attainment, long.goodput_rps, long.e2e_p95_s) == (None,) * 4
    assert (long.arrivals, long.rate_rps, long.rate_trend, long.alarms) == (0, 0.0, 0.0, ())


def test_a_steady_stream(feedback):
    steady(feedback)
    long = feedback.long_state()
    assert long.window_s == 120.0
    assert long.rate_rps == pytest.approx(5.0, rel=0.02)
    assert long.rate_trend == pytest.approx(0.0, abs=0.01)
    assert long.attainment == 1.0
    assert long.goodput_rps == pytest.approx(5.0, rel=0.02)
    assert long.alarms == ()
    assert (long.prompt_p50, long.output_p90, long.e2e_p95_s) == (1000, 100, 2.0)
    assert set(long.dispersion) == {"1s", "10s", "60s"}
    assert all(index < 0.1 for index in long.dispersion.values())


def test_the_controllers_own_requests_are_nobodys_attainment(feedback):
    """They fail, in a class of their own and in a burst: only the load knows of them."""
    steady(feedback, until_s=60.0)
    before = feedback.long_state()
    ours = {"tenant": "hmas", "slo_class": "custom", "prompt_tokens": 9000}
    came = [arrival(9000 + i, 59.5, **ours) for i in range(50)]
    left = [
        outcome(9000 + i, 59.5, after_s=0.5, met=False, miss="e2e", **ours) for i in range(50)
    ]
    feedback.observe(snapshot(60.0), page(came, left))
    short, long = feedback.short_state(), feedback.long_state()
    assert (long.own_arrivals, long.own_attainment) == (50, 0.0)
    assert (long.attainment, long.misses, long.alarms) == (1.0, {}, ())
    assert long.attainment_by_tenant == before.attainment_by_tenant == {"acme": 1.0}
    assert long.attainment_by_class == before.attainment_by_class
    assert (long.arrivals, long.prompt_p90) == (before.arrivals, 1000)
    assert set(short.attainment_by_tenant) == set(short.offered_by_tenant) == {"acme"}
    assert feedback.realised(0.0, 60.0)[0] == 1.0
    assert before.load is not None
    assert long.load > 1.5 * before.load
    assert "hmas" in {request.tenant for request in feedback.recent_requests(60.0, 9999)[0]}


def test_the_window_is_as_young_as_the_controller(feedback):
    feedback.observe(snapshot(1000.0), page())
    feedback.observe(snapshot(1010.0), page([arrival(i, 1000.0 + i) for i in range(10)]))
    long = feedback.long_state()
    assert (long.window_s, long.rate_rps) == (10.0, 1.0)


def test_load_is_near_one_where_the_design_page_saw_saturation(feedback):
    """The 8B model with Azure conversation lengths saturates between 12 and 18 rps."""
    steady(feedback, rate_rps=15.0, until_s=60.0, prompt_tokens=1155)
    load = feedback.long_state().load
    output_tokens, prompt_tokens = 100, 1155
    context = prompt_tokens + output_tokens / 2
    by_hand = 15.0 * (
        prompt_tokens * 35e-6 + output_tokens * (0.0065 / 256 + 35e-6 + context * 33e-9)
    )
    assert load == pytest.approx(by_hand, rel=0.02)
    assert 0.6 < load < 1.2


def test_cached_prompt_tokens_are_no_load():
    loads = {}
    for cached in (0, 900):
        feedback = Feedback(load_config(None))
        known = {"prompt_tokens": 1000, "cached_tokens": cached}
        for i in range(200):
            came, left = arrival(i, i / 10, **known), outcome(i, i / 10, 0.5, **known)
            feedback.observe(snapshot(i / 10 + 0.5), page([came], [left]))
        loads[cached] = feedback.long_state().load or 0.0
    per_output = 0.0065 / 256 + 35e-6 + 1050 * 33e-9
    ratio = (100 * 35e-6 + 100 * per_output) / (1000 * 35e-6 + 100 * per_output)
    assert loads[900] / loads[0] == pytest.approx(ratio, rel=1e-6)


def test_what_is_cached_by_the_time_of_admission_counts():
    """Of a burst that shares a prompt nothing is cached when it arrives."""
    loads = []
    for cached in (0, 900):
        feedback = Feedback(load_config(None))
        for i in range(200):
            came = arrival(i, i / 10, prompt_tokens=1000)
            left = outcome(i, i / 10, 0.5, prompt_tokens=1000, cached_tokens=cached)
            feedback.observe(snapshot(i / 10 + 0.5), page([came], [left]))
        loads.append(feedback.long_state().load or 0.0)
    assert loads[1] < 0.5 * loads[0]


def test_load_is_proportional_to_the_rate():
    loads = []
    for rate_rps in (2.0, 8.0):
        feedback = Feedback(load_config(None))
        steady(feedback, rate_rps, until_s=150.0)
        loads.append(feedback.long_state().load or 0.0)
    assert loads[1] / loads[0] == pytest.approx(4.0, rel=0.05)


def test_ranks_share_the_load_and_counts_are_of_all(feedback):
    steady(feedback, until_s=20.0)
    alone = feedback.long_state().load
    ranks = [snapshot(20.0, rank=i, batch=BatchState(running=7)) for i in (0, 1)]
    feedback.observe(merge_snapshots(ranks), page())
    assert feedback.long_state().load == pytest.approx(alone / 2)
    short = feedback.short_state()
    assert (short.ranks, short.running, short.max_active_requests) == (2, 14, 256)


@pytest.mark.parametrize("base_s", [math.nan, math.inf])
def test_a_broken_cost_model_gives_no_load(feedback, base_s):
    steady(feedback, until_s=20.0)
    cost = CostCoefficients(base_s, 35e-6, 35e-6)
    feedback.observe(snapshot(21.0, cost=cost), page())
    assert feedback.long_state().load is None


def test_a_burst_raises_the_rate_alarm(feedback):
    steady(feedback, until_s=100.0)
    for second in range(101, 116):
        came = [arrival(second * 1000 + i, second - 1 + i / 30) for i in range(30)]
        feedback.observe(snapshot(float(second)), page(came))
    assert feedback.long_state().alarms == ("rate_up",)
    assert feedback.long_state().rate_trend > 0


def test_longer_prompts_and_another_mix_alarm(feedback):
    steady(feedback, until_s=300.0)
    changed = {"prompt_tokens": 6000, "tenant": "globex", "slo_class": "document"}
    for second in range(301, 322):
        came = [arrival(second * 1000 + i, second - 1 + i / 5, **changed) for i in range(5)]
        feedback.observe(snapshot(float(second)), page(came))
    long = feedback.long_state()
    assert {"lengths", "mix"} <= set(long.alarms)
    assert long.psi_lengths > 0.25
    assert long.psi_mix > 0.25


def test_requests_that_finish_short_ones_first_are_no_drift(feedback):
    came = [arrival(i, i / 10) for i in range(300)]
    left = [outcome(i, i / 10, 1 + (i % 10) * 5, output_tokens=2 ** (i % 10)) for i in range(300)]
    for second in range(1, 61):
        feedback.observe(
            snapshot(float(second)),
            page(
                [a for a in came if second - 1 <= a.arrival_s < second],
                [o for o in left if second - 1 <= o.finished_s < second],
            ),
        )
        assert "lengths" not in feedback.long_state().alarms


def test_causes_of_misses_are_shares_of_all_finished(feedback):
    left = [outcome(i, 1000.0) for i in range(6)]
    left += [outcome(6 + i, 1000.0, met=False, miss="tpot", tpot_s=0.05) for i in range(2)]
    feedback.observe(snapshot(1003.0), page([arrival(i, 1000.0) for i in range(8)], left))
    long, short = feedback.long_state(), feedback.short_state()
    assert long.misses == {"tpot": 0.25}
    assert long.attainment == 0.75
    assert (short.tpot_miss_share, short.ttft_miss_share) == (0.25, 0.0)


def test_attainment_by_group(feedback):
    came = [arrival(0, 1000.0), arrival(1, 1000.0, tenant="globex")]
    left = [outcome(0, 1000.0), outcome(1, 1000.0, met=False, miss="tpot", tenant="globex")]
    feedback.observe(snapshot(1003.0), page(came, left))
    for state in (feedback.short_state(), feedback.long_state()):
        assert state.attainment_by_tenant == {"acme": 1.0, "globex": 0.0}
        assert state.attainment_by_class == {"interactive": 0.5}


def test_short_state_rates_come_from_the_counters(feedback):
    for second, preemptions in ((0, 10), (5, 12), (10, 20)):
        kv = KVState(1000, 250, 1200, preemptions)
        came = [arrival(second, 1000.0 + second, prompt_tokens=1000)]
        feedback.observe(snapshot(1000.0 + second, kv=kv), page(came))
    short = feedback.short_state()
    assert short.preemptions_per_s == 1.0
    assert (short.kv_used, short.kv_predicted_peak) == (0.25, 1.2)


def test_an_engine_that_restarts_does_not_give_negative_rates(feedback):
    for now_s, preemptions, steps in ((1000.0, 50, 900), (1002.0, 1, 5), (1004.0, 3, 20)):
        kv, batch = KVState(100, 10, 10, preemptions), BatchState(steps=steps)
        feedback.observe(snapshot(now_s, kv=kv, batch=batch), page())
    assert feedback.short_state().preemptions_per_s == 1.0


def test_a_page_read_twice_counts_once(feedback):
    events = page([arrival(1, 1000.0)], [outcome(1, 1000.0)])
    for _ in range(2):
        feedback.observe(snapshot(1003.0), events)
    assert feedback.long_state().arrivals == 1
    assert feedback.realised(0.0, 2000.0) == (1.0, 1)


def test_nan_metrics_become_not_known(feedback):
    nan = math.nan
    queue = QueueState(3, 300, nan, nan, nan, nan, 1)
    batch = BatchState(decode_slack_p10_s=nan, step_time_bias=nan)
    bad = snapshot(1000.0, queue=queue, batch=batch, length_coverage=nan)
    came = [arrival(1, nan), arrival(2, math.inf), arrival(3, 999.0)]
    feedback.observe(bad, page(came, [outcome(4, nan)]))
    feedback.observe(snapshot(nan), page())
    short, long = feedback.short_state(), feedback.long_state()
    assert (short.min_laxity_s, short.decode_slack_p10_s, long.length_coverage) == (None,) * 3
    assert long.arrivals == 1
    for state in (short, long):
        for name, value in dataclasses.asdict(state).items():
            assert not (isinstance(value, float) and not math.isfinite(value)), name


class TestRealised:
    """Attainment of the requests that a window concerned."""

    def test_those_inside_count_unless_their_first_token_was_late_already(self, feedback):
        """Target 0.5 s; at 10 s one is served late, one waits in vain, one is in time."""
        came = [arrival(i, at_s) for i, at_s in enumerate((8.0, 8.5, 9.8))]
        left = [
            outcome(0, 8.0, after_s=9.0, ttft_s=1.0, met=False),
            outcome(1, 8.5, after_s=9.0, ttft_s=4.0, met=False),
            outcome(2, 9.8, after_s=9.0, ttft_s=0.4),
        ]
        feedback.observe(snapshot(40.0), page(came, left))
        assert feedback.realised(10.0, 30.0) == (1.0, 1)

    def test_what_left_before_the_window_does_not_count(self, feedback):
        feedback.observe(snapshot(40.0), page([], [outcome(0, 5.0, after_s=1.0)]))
        assert feedback.realised(10.0, 30.0) is None

    def test_nothing_decided_is_none(self, feedback):
        feedback.observe(snapshot(1000.0), page([arrival(1, 999.9)]))
        assert feedback.realised(990.0, 1000.0) is None
        assert feedback.realised(0.0, 10.0) is None

    def test_the_window_is_half_open_by_arrival(self, feedback):
        left = [outcome(i, at_s, met=i != 1) for i, at_s in enumerate((10.0, 20.0, 30.0))]
        feedback.observe(snapshot(40.0), page([], left))
        assert feedback.realised(10.0, 30.0) == (0.5, 2)

    def test_a_request_that_decodes_past_its_ttft_deadline_is_not_a_miss(self, feedback):
        came = [arrival(1, 10.0), arrival(2, 10.5)]
        feedback.observe(snapshot(20.0), page(came, [outcome(1, 10.0)]))
        assert feedback.realised(10.0, 11.0) == (1.0, 1)

    def test_waiting_requests_past_saving_are_misses(self, feedback):
        came = [arrival(i, 10.0 + i / 10) for i in range(5)]
        queue = QueueState(waiting=4, oldest_wait_s=10.0, hopeless=4)
        feedback.observe(snapshot(20.0, queue=queue), page(came, [outcome(0, 10.0)]))
        assert feedback.realised(10.0, 11.0) == (0.2, 5)
        assert feedback.long_state().attainment == 0.2

    def test_they_are_spread_over_all_that_could_be_meant(self, feedback):
        came = [arrival(i, 10.0 + i / 10) for i in range(8)]
        queue = QueueState(waiting=4, oldest_wait_s=10.0, hopeless=4)
        feedback.observe(snapshot(20.0, queue=queue), page(came))
        assert feedback.realised(10.0, 10.35) == (0.0, 2)

    def test_requests_without_a_target_cannot_be_late(self, feedback):
        queue = QueueState(waiting=1, oldest_wait_s=90.0, hopeless=1)
        feedback.observe(snapshot(100.0, queue=queue), page([arrival(1, 10.0, slo=SLO())]))
        assert feedback.realised(0.0, 100.0) is None


class TestRecentRequests:
    """The last window as a trace."""

    def test_oldest_first_from_zero_with_true_lengths(self, feedback):
        came = [arrival(i, 1000.0 + i) for i in range(3)]
        left = [outcome(i, 1000.0 + i, output_tokens=50 + i) for i in range(3)]
        feedback.observe(snapshot(1010.0), page(came, left))
        trace, span_s = feedback.recent_requests(9.5, 100)
        assert span_s == 9.0
        assert [r.arrival_s for r in trace] == [0.0, 1.0]
        assert [r.output_tokens for r in trace] == [51, 52]
        assert {(r.tenant, r.slo_class, r.prompt_tokens) for r in trace} == {
            ("acme", "interactive", 1000)
        }

    def test_the_newest_when_there_are_too_many(self, feedback):
        came = [arrival(i, 1000.0 + i, prompt_tokens=100 + i) for i in range(10)]
        feedback.observe(snapshot(1010.0), page(came))
        assert [r.prompt_tokens for r in feedback.recent_requests(60.0, 3)[0]] == [107, 108, 109]

    def test_a_length_that_nobody_knows_yet_is_1(self, feedback):
        feedback.observe(snapshot(1001.0), page([arrival(1, 1000.0, max_tokens=500)]))
        (request,), _ = feedback.recent_requests(60.0, 10)
        assert (request.output_tokens, request.max_tokens) == (1, 500)


class TestServed:
    """What answer lengths are drawn and learnt from."""

    def test_the_newest_answers_that_ended_as_they_should(self, feedback):
        finishes = ["stop", "aborted", "length", "stop"]
        left = [
            outcome(i, 1000.0 + i, output_tokens=10 + i, finish=finish)
            for i, finish in enumerate(finishes)
        ]
        came = [arrival(i, 1000.0 + i, max_tokens=99) for i in range(4)]
        feedback.observe(snapshot(1010.0), page(came, left))
        assert [s.output_tokens for s in feedback.served(10)] == [10, 12, 13]
        assert feedback.served(2)[0] == Served("acme", 1000, 99, 12)


FLOATS = st.one_of(st.floats(0, 2000), st.floats(allow_nan=True, allow_infinity=True))


@given(
    st.lists(
        st.tuples(st.integers(0, 30), FLOATS, st.booleans(), st.sampled_from(["a", "b"])),
        max_size=120,
    ),
    st.lists(st.floats(0, 2000), min_size=1, max_size=10),
)
def test_states_hold_whatever_the_journal_says(events, clock_s):
    feedback = Feedback(load_config(None))
    for position, now_s in enumerate(clock_s):
        mine = events[position :: len(clock_s)]
        came = [arrival(n, t, tenant=who) for n, t, leaves, who in mine if not leaves]
        left = [outcome(n, t, tenant=who, met=n % 2 == 0) for n, t, leaves, who in mine if leaves]
        feedback.observe(snapshot(now_s), page(came, left))
        short, long = feedback.short_state(), feedback.long_state()
        assert long.attainment is None or 0 <= long.attainment <= 1
        assert long.rate_rps >= 0
        assert math.isfinite(long.rate_trend)
        assert all(0 <= share <= 1 for share in long.misses.values())
        assert short.preemptions_per_s >= 0
        trace, _ = feedback.recent_requests(300.0, 50)
        assert [r.arrival_s for r in trace] == sorted(r.arrival_s for r in trace)
        assert all(r.output_tokens >= 1 and r.prompt_tokens >= 1 for r in trace)

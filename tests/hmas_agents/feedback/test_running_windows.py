"""Running sums agree with the sums they stand for, whatever comes in."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.config import load_config
from hmas_agents.feedback import Feedback
from hmas_agents.feedback.drift import length_bin, shift
from hmas_agents.feedback.drift_window import DriftWindow
from hmas_agents.feedback.short_window import ShortWindow
from serving.contracts import SLO, BatchState, Envelope, KVState, QueueState
from tests.hmas_agents.samples import arrival, outcome, page, snapshot

SPAN_S = 10.0
GAPS = st.lists(st.floats(0, 4), min_size=1, max_size=120)
KINDS = st.tuples(
    st.sampled_from(["a", "b", "c"]), st.integers(1, 5000),
    st.one_of(st.none(), st.floats(0, 2)), st.one_of(st.none(), st.floats(0, 0.1)),
    st.sampled_from(["stop", "aborted", "rejected"]),
    st.sampled_from([SLO(500, 30), SLO(500), SLO(tpot_ms=30), SLO()]),
)  # fmt: skip


def times(gaps):
    now_s = 0.0
    for gap_s in gaps:
        now_s += gap_s
        yield now_s


@given(GAPS, st.data())
def test_the_short_window_is_what_a_sum_over_the_last_seconds_would_be(gaps, data):
    window, came, left = ShortWindow(SPAN_S), [], []
    for number, at_s in enumerate(times(gaps)):
        tenant, tokens, ttft_s, tpot_s, finish, slo = data.draw(KINDS)
        came.append(arrival(number, at_s, tenant=tenant, prompt_tokens=tokens, slo=slo))
        left.append(
            outcome(
                number,
                at_s,
                0.0,
                met=tokens % 2 == 0,
                ttft_s=ttft_s,
                tpot_s=tpot_s,
                finish=finish,
                slo=slo,
            )
        )
        window.arrive(came[-1])
        window.leave(left[-1])
        window.expire(at_s)
        recent = [a for a in came if a.arrival_s >= at_s - SPAN_S]
        total = sum(a.prompt_tokens for a in recent)
        assert window.prompt_tokens == total
        paced = sum(a.slo.tpot_ms == 30 for a in recent)
        assert window.tpot_target_shares() == (((0.03, paced / len(recent)),) if paced else ())
        shares = Counter[str]()
        for one in recent:
            shares[one.tenant] += one.prompt_tokens
        assert window.offered_shares() == {t: shares[t] / total for t in sorted(shares)}
        assert window.requests() == dict(sorted(Counter(a.tenant for a in recent).items()))
        ended = [o for o in left if o.finished_s >= at_s - SPAN_S]
        served = [o for o in ended if o.finish == "stop" or o.ttft_s]
        late = [o.ttft_s is None or o.ttft_s * 1e3 > o.slo.ttft_ms for o in served if o.slo.ttft_ms]
        assert window.ttft_miss_share() == (sum(late) / len(late) if late else None)
        met = Counter(o.slo_class for o in ended if o.met)
        assert window.met_by_class == met
        slow = [o.tpot_s * 1e3 > 30 for o in ended if o.slo.tpot_ms and o.tpot_s is not None]
        assert window.tpot_miss_share() == (sum(slow) / len(slow) if slow else None)


@given(GAPS, st.data())
def test_the_drift_window_is_what_a_look_at_all_arrivals_would_be(gaps, data):
    window, came = DriftWindow(), []
    for at_s in times(gaps):
        kind = data.draw(st.sampled_from(["a", "b"])), data.draw(st.sampled_from([10, 900, 9000]))
        came += [(at_s, *kind)] * 5
        for _ in range(5):
            window.add(at_s, kind[1], kind[0], "batch")
        since_s, newer_s = at_s - 100.0, at_s - 25.0
        window.advance(since_s, newer_s)
        older = [c for c in came if since_s <= c[0] < newer_s]
        newer = [c for c in came if c[0] >= newer_s]
        assert window.lengths() == shift(
            (length_bin(c[2]) for c in older), (length_bin(c[2]) for c in newer)
        )
        assert window.mix() == shift(
            ((c[1], "batch") for c in older), ((c[1], "batch") for c in newer)
        )


def test_both_are_bounded_under_a_flood():
    drift, short = DriftWindow(max_events=100), ShortWindow(SPAN_S, max_events=100)
    for number in range(1000):
        drift.add(0.0, 10, f"t{number}", "batch")
        short.arrive(arrival(number, 0.0, tenant=f"t{number}", prompt_tokens=7))
        short.leave(outcome(number, 0.0))
    assert len(drift._newer.events) + len(drift._older.events) == 100
    assert len(drift._newer.groups) == 100
    assert (short.prompt_tokens, len(short.by_tenant)) == (700, 100)


def test_alarms_alone_are_those_of_the_long_state():
    feedback = Feedback(load_config(None))
    changed = {"prompt_tokens": 6000, "tenant": "globex"}
    for second in range(1, 200):
        rate, what = (5, {}) if second < 170 else (30, changed)
        came = [
            arrival(second * 100 + i, second - 1 + i / rate, **what)
            for i in range(rate)
        ]  # fmt: skip
        feedback.observe(snapshot(float(second)), page(came))
        assert feedback.alarms() == feedback.long_state().alarms
    assert {"lengths", "mix"} <= set(feedback.alarms())


def test_what_the_shedding_and_shares_rules_need_is_in_the_short_state():
    feedback = Feedback(load_config(None))
    queue = QueueState(waiting=30, hopeless=18, sheddable=20, sheddable_hopeless=15)
    envelope = Envelope(256, 2048, 16_384, 40_000, 16, ("batch",))
    came = [
        arrival(1, 999.0, tenant="a", prompt_tokens=300),
        arrival(2, 999.5, tenant="b", prompt_tokens=100),
    ]
    left = [outcome(3 + i, 990.0, 9.0, slo_class="batch", met=i > 0) for i in range(11)]
    feedback.observe(snapshot(1000.0, queue=queue, envelope=envelope), page(came, left))
    state = feedback.short_state()
    assert (state.sheddable, state.sheddable_waiting) == (("batch",), 20)
    assert state.sheddable_in_vain_share == 15 / (20 + 10), "served in time ones count"
    assert state.in_vain_share == 3 / 10
    assert state.offered_by_tenant == {"a": 0.75, "b": 0.25}
    assert math.isclose(sum(state.offered_by_tenant.values()), 1.0)


def test_what_a_decode_costs_and_who_was_promised_which_pace_is_in_the_short_state():
    feedback = Feedback(load_config(None))
    targets = (30, 30.1, 100, None)  # the second is as good as the first
    came = [arrival(i, 1.0, slo=SLO(500, target)) for i, target in enumerate(targets)]
    kv, batch = KVState(40_000, used_blocks=500), BatchState(running=4)
    feedback.observe(snapshot(2.0, kv=kv, batch=batch, envelope=Envelope(64, 512, 999, 40_000, 16)),
                     page(came))  # fmt: skip
    state = feedback.short_state()
    assert state.tpot_targets == ((0.03, 0.5), (0.1, 0.25))
    cost = snapshot(0.0).cost
    assert state.step_base_s == cost.base_s
    # 500 blocks of 16 tokens: 2,000 each.
    assert state.decode_s == pytest.approx(cost.per_decode_s + 2000 * cost.per_context_token_s)
    feedback.observe(snapshot(3.0), page(()))
    assert feedback.short_state().decode_s == 0.0, "of an empty batch nothing is known"


def test_a_rejected_request_is_a_miss_of_its_class_and_tenant_but_no_late_token():
    feedback = Feedback(load_config(None))
    refused = outcome(1, 999.0, 0.0, ttft_s=None, tpot_s=None, met=False, finish="rejected")
    feedback.observe(snapshot(1000.0), page([arrival(1, 999.0)], [refused]))
    state = feedback.short_state()
    assert state.attainment_by_class == {"interactive": 0.0}
    assert state.attainment_by_tenant == {"acme": 0.0}
    assert state.ttft_miss_share is None
    assert feedback.long_state().attainment == 0.0
    assert feedback.realised(990.0, 1000.0) == (0.0, 1)

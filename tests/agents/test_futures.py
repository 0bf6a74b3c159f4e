"""Drawn futures look like the recent past, and are the same for every candidate."""

from collections import Counter
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.situation import Expected, Served
from hmas_agents.twin.futures import TAIL, Futures, Lengths
from serving.contracts import Contract, ResidentPage, TraceRequest
from tests.agents.situations import NOW_S, situation, waiting
from tests.agents.states import long_state


def draw(now, seed: int = 0, horizon_s: float = 45.0):
    return Futures(now, horizon_s).draw(seed)


def tenants(now, drawn):
    return [now.requests[i].tenant for i in drawn.which]


def rate_rps(now, horizon_s: float = 45.0) -> float:
    """On average over as many futures as a decision looks at."""
    futures = Futures(now, horizon_s)
    counts = [len(futures.draw(seed).arrival_s) for seed in range(32)]
    return float(np.mean(counts)) / ((1 + TAIL) * horizon_s)


def test_the_same_seed_is_the_same_future_and_another_one_is_not():
    one, again, other = (draw(situation(), seed) for seed in (1, 1, 2))
    pairs = zip(astuple(one), astuple(again), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert not np.array_equal(one.arrival_s, other.arrival_s)


@given(rate=st.floats(4.0, 60.0), seed=st.integers(0, 10_000), until_s=st.floats(1.0, 60.0))
def test_a_steady_window_goes_on(rate, seed, until_s):
    now = situation(rate)
    drawn = draw(now, seed, until_s)
    assert np.array_equal(drawn.arrival_s, np.sort(drawn.arrival_s))
    assert all(0.0 <= at_s < (1 + TAIL) * until_s for at_s in drawn.arrival_s)
    inside = len(now.inside.requests)
    assert len(drawn.weights) == inside + len(drawn.which)
    assert np.array_equal(drawn.weights[inside:] > 0, drawn.arrival_s < until_s)


@pytest.mark.parametrize("rate", [5.0, 40.0])
def test_futures_keep_the_rate_on_average_and_differ_in_it(rate):
    now = situation(rate)
    assert rate_rps(now) == pytest.approx(rate, rel=0.06)
    counts = [len(draw(now, seed).arrival_s) for seed in range(32)]
    assert 0.2 < np.std(counts) / np.mean(counts) < 0.45
    for first in (0, 16):  # either half has quiet ones and busy ones
        half = counts[first : first + 16]
        assert min(half) < 0.75 * np.mean(counts) < 1.25 * np.mean(counts) < max(half)


def busier() -> tuple[TraceRequest, ...]:
    """2 requests/s for 50 s, then 20 requests/s for 10 s."""
    slow = [TraceRequest(i / 2, 200, 1, "a") for i in range(100)]
    return tuple(slow + [TraceRequest(50 + i / 20, 200, 1, "a") for i in range(200)])


def test_newer_stretches_come_more_often_above_all_after_an_alarm():
    def rate(*alarms: str) -> float:
        state = long_state(now_s=NOW_S, alarms=alarms)
        return rate_rps(situation(requests=busier(), span_s=60.0, state=state))

    overall_rps, newest_rps = 300 / 60, 20.0
    assert overall_rps < rate() < rate("rate_up") <= 1.06 * newest_rps


def test_a_false_alarm_leaves_a_sparse_stream_as_it_is():
    """At two requests a second the last block alone is ten: too few to tell rate or mix by."""
    steady = tuple(TraceRequest(i / 2, 200, 1, "a") for i in range(100))
    lull = tuple(TraceRequest(50.0 + 2.5 * i, 200, 1, "a") for i in range(4))  # by chance

    def rate(*alarms: str) -> float:
        state = long_state(now_s=NOW_S, alarms=alarms)
        return rate_rps(situation(requests=steady + lull, span_s=60.0, state=state))

    assert rate("rate_down") > 0.8 * rate() > 1.0


def test_bursts_and_tenants_of_one_stretch_stay_together():
    """A tenant that came in one stretch only brings its whole stretch with it."""
    requests = tuple(
        TraceRequest(float(i), 200, 1, "rare" if 20 <= i < 25 else "usual") for i in range(40)
    )
    now = situation(requests=requests, span_s=40.0)
    drawn = draw(now, 3, 400.0)
    stretches: dict[int, Counter[str]] = {}
    for tenant, at_s in zip(tenants(now, drawn), drawn.arrival_s, strict=True):
        stretches.setdefault(int(at_s // 5), Counter())[tenant] += 1
    assert all(len(counts) == 1 for counts in stretches.values())
    assert any("rare" in counts for counts in stretches.values())


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 3.5])
def test_an_announced_change_acts_on_whom_it_names_and_while_it_lasts(factor):
    two = [replace(one, tenant="ab"[i % 2]) for i, one in enumerate(situation(20.0).requests)]
    expected = (Expected(factor, NOW_S + 20.0, NOW_S + 40.0, tenant="b"),)
    now = situation(requests=tuple(two), expected=expected)
    counts: Counter[tuple[str, bool]] = Counter()
    futures = Futures(now, 45.0)
    for seed in range(64):
        drawn = futures.draw(seed)
        for tenant, at_s in zip(tenants(now, drawn), drawn.arrival_s, strict=True):
            counts[tenant, 20.0 <= at_s < 40.0] += 1
    assert counts["b", True] / counts["a", True] == pytest.approx(factor, rel=0.05, abs=0.01)
    assert counts["b", False] / counts["a", False] == pytest.approx(1.0, rel=0.05)


def test_a_change_without_a_name_or_an_end_acts_on_all_from_then_on():
    now = situation(20.0, expected=(Expected(2.0, NOW_S - 5.0),))
    assert rate_rps(now) == pytest.approx(40.0, rel=0.06)


@given(
    seen=st.lists(st.integers(1, 2000), max_size=60),
    longer_than=st.integers(0, 3000),
    seed=st.integers(0, 1000),
)
def test_an_answer_that_goes_on_gets_longer(seen, longer_than, seed):
    lengths = Lengths([Served("a", 100, 4096, tokens) for tokens in seen])
    tails = lengths.tails([("a", 100, longer_than)])
    drawn = tails.draw(np.random.default_rng(seed), np.zeros(1, np.int64))[0]
    assert drawn > longer_than
    tail = [tokens for tokens in seen if tokens > longer_than]
    assert not tail or drawn in tail


def test_the_narrowest_group_with_enough_answers_is_drawn_from():
    served = [Served("chat", 100, 512, 50)] * 20 + [Served("code", 100, 512, 7)] * 20
    tails = Lengths(served).tails([("chat", 100, 0), ("code", 100, 0), ("new", 100, 0)])

    def drawn(which: int) -> set[int]:
        rng = np.random.default_rng(0)
        return set(tails.draw(rng, np.full(60, which)).tolist())

    assert [drawn(0), drawn(1), drawn(2)] == [{50}, {7}, {50, 7}]


def test_requests_inside_end_within_their_max_tokens():
    inside = tuple(waiting(i, 1.0, max_tokens=12, output_tokens=i) for i in range(12))
    drawn = draw(situation(inside=ResidentPage(NOW_S, inside)), 5)
    assert all(i < tokens <= 12 for i, tokens in enumerate(drawn.whole_tokens))


def test_what_has_missed_already_and_the_controllers_own_requests_count_nothing():
    late, own, fresh = waiting(0, 100.0), waiting(1, 0.1, tenant="hmas"), waiting(2, 0.1)
    now = situation(inside=ResidentPage(NOW_S, (late, own, fresh)), own_tenants=("hmas",))
    assert draw(now).weights[:3].tolist() == [0.0, 0.0, 1.0]


def test_requests_count_by_their_weight_in_the_contract():
    terms = {"tenants": {"b": {"weight": 3.0}}, "classes": {"document": {"weight": 0.5}}}
    inside = (waiting(0, 0.1), waiting(1, 0.1, tenant="b"),
              waiting(2, 0.1, tenant="b", slo_class="document"))  # fmt: skip
    base = situation(inside=ResidentPage(NOW_S, inside))
    requests = tuple(replace(one, tenant="ab"[i % 2]) for i, one in enumerate(base.requests))
    settings = base.settings.under(Contract.model_validate(terms))
    now = replace(base, settings=settings, requests=requests)
    drawn, unweighed = draw(now), draw(replace(now, settings=base.settings))
    assert drawn.weights[:3].tolist() == [1.0, 3.0, 1.5]
    times = [3.0 if tenant == "b" else 1.0 for tenant in tenants(now, drawn)]
    assert drawn.weights[3:].tolist() == (unweighed.weights[3:] * times).tolist()
    assert set(drawn.weights[3:]) == {0.0, 1.0, 3.0}


def test_an_idle_window_brings_nobody():
    assert len(draw(situation(requests=(), span_s=0.0)).arrival_s) == 0

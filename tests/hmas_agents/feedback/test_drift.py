"""Drift statistics: known values, few false alarms, and alarms when traffic changes."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.feedback.drift import (
    RateAlarm,
    cusum,
    dispersion,
    length_bin,
    psi,
    psi_noise,
    shift,
)

COUNTS = st.dictionaries(st.integers(0, 12), st.integers(0, 500), max_size=12)


def poisson_arrivals(rng, rate_rps, from_s, until_s):
    at_s = from_s
    while (at_s := at_s + rng.expovariate(rate_rps)) < until_s:
        yield at_s


def alarms_of(arrivals_s, until_s, bin_s=10.0):
    alarm = RateAlarm(bin_s, threshold=5.0, drift=0.5)
    fired: list[tuple[str, int]] = []
    arrivals = iter([*arrivals_s, math.inf])
    at_s = next(arrivals)
    for tick in range(int(until_s)):
        while at_s <= tick:
            alarm.arrive(at_s)
            at_s = next(arrivals)
        alarm.advance(float(tick))
        if alarm.fired and (not fired or fired[-1][1] < tick - bin_s):
            fired.append((alarm.fired, tick))
    return fired


def test_cusum_adds_what_exceeds_the_allowance_and_never_goes_below_zero():
    assert cusum(1.0, 1.0, 2.0, 0.5) == (2.5, 0.0)
    assert cusum(1.0, 1.0, -2.0, 0.5) == (0.0, 2.5)
    assert cusum(0.0, 0.0, 0.0, 0.5) == (0.0, 0.0)


def test_psi_of_a_known_pair():
    # Shares 0.5/0.5 against 0.25/0.75, by hand: 0.25*ln(2) + 0.25*ln(1.5) = 0.2747.
    assert psi({0: 50_000, 1: 50_000}, {0: 25_000, 1: 75_000}) == pytest.approx(0.2747, abs=1e-3)


@given(COUNTS, COUNTS)
def test_psi_is_symmetric_finite_and_never_negative(a, b):
    assert psi(a, b) == pytest.approx(psi(b, a))
    assert math.isfinite(psi(a, b))
    assert psi(a, b) >= -1e-12
    assert psi(a, a) == pytest.approx(0.0)


def test_psi_noise_is_what_sampling_shows():
    rng = random.Random(1)
    bins, n, m = 8, 300, 100
    values = []
    for _ in range(400):
        before, after = (dict.fromkeys(range(bins), 0) for _ in range(2))
        for counts, size in ((before, n), (after, m)):
            for _ in range(size):
                counts[rng.randrange(bins)] += 1
        values.append(psi(before, after))
    mean, p99 = psi_noise(bins, n, m)
    assert sum(values) / len(values) == pytest.approx(mean, rel=0.1)
    assert sum(value > p99 for value in values) <= 0.03 * len(values)


def test_shift_sees_a_change_and_not_chance():
    rng = random.Random(2)
    same = [length_bin(int(rng.lognormvariate(7, 0.8))) for _ in range(600)]
    other = [length_bin(int(rng.lognormvariate(8.5, 0.8))) for _ in range(100)]
    assert shift(same[:450], same[450:])[0] < 0.1
    value, significant = shift(same[:450], other)
    assert value > 0.5
    assert significant


def test_shift_says_nothing_about_few_observations_and_pools_many_categories():
    assert shift(["a"] * 10, ["b"] * 1000) == (0.0, False)
    assert shift(["a"] * 1000, ["b"] * 10) == (0.0, False)
    value, _ = shift([f"t{i}" for i in range(500)], [f"t{i}" for i in range(500)])
    assert value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1024, 11)]
)
def test_length_bins_are_powers_of_two(tokens, expected):
    assert length_bin(tokens) == expected


def test_dispersion_tells_regular_random_and_bursty_arrivals_apart():
    rng = random.Random(3)
    regular = [i / 5 + 0.01 for i in range(1500)]
    random_ = list(poisson_arrivals(rng, 5.0, 0.0, 300.0))
    bursty = [minute * 60 + rng.random() for minute in range(5) for _ in range(300)]
    assert dispersion(regular, 0.0, 300.0, 10.0) < 0.1
    assert 0.4 < dispersion(random_, 0.0, 300.0, 1.0) < 1.6
    assert dispersion(bursty, 0.0, 300.0, 10.0) > 50


def test_dispersion_needs_four_bins_and_an_arrival():
    assert math.isnan(dispersion([1.0, 2.0], 0.0, 200.0, 60.0))
    assert math.isnan(dispersion([], 0.0, 300.0, 60.0))
    assert dispersion([1.0, 61.0, 121.0, 181.0, 241.0], 0.0, 300.0, 60.0) == 0.0


@pytest.mark.parametrize(("after", "name"), [(12.0, "rate_up"), (1.0, "rate_down")])
def test_a_changed_rate_alarms_within_three_bins_and_once(after, name):
    rng = random.Random(4)
    arrivals = [
        *poisson_arrivals(rng, 5.0, 0.0, 300.0),
        *poisson_arrivals(rng, after, 300.0, 600.0),
    ]
    fired = alarms_of(arrivals, 600)
    assert [alarm for alarm, _ in fired] == [name]
    assert 300 < fired[0][1] <= 330


def test_steady_traffic_rarely_alarms():
    alarms = 0
    for seed in range(10):
        arrivals = poisson_arrivals(random.Random(seed), 5.0, 0.0, 1800.0)
        alarms += len(alarms_of(arrivals, 1800))
    # 1,800 bins in all; the chart's nominal rate is one alarm in 465.
    assert alarms <= 12


def test_a_long_silence_costs_little_and_ends():
    alarm = RateAlarm(1.0, 5.0, 0.5)
    alarm.arrive(0.0)
    alarm.advance(1e9)
    alarm.arrive(1e9)
    assert alarm.count == 1


def test_a_clock_that_steps_back_is_survived():
    alarm = RateAlarm(1.0, 5.0, 0.5)
    for at_s in (10.0, 5.0, 11.5):
        alarm.arrive(at_s)
    assert alarm.fired == ""

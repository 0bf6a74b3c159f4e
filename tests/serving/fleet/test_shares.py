"""Are a tenant's terms the fleet's, however its requests lie on the replicas?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from serving.fleet.shares import EVEN, divide, divide_by_demand, fleet_shares, parts_of

AMOUNTS = st.one_of(st.just(0.0), st.floats(1e-3, 1e6))


@st.composite
def fleets(draw, least_replicas=1):
    """Weights, backlog and service."""
    shape = draw(st.integers(least_replicas, 6)), draw(st.integers(1, 5))
    weights = draw(arrays(float, shape[1], elements=st.floats(0.1, 10.0)))
    backlog, service = (draw(arrays(float, shape, elements=AMOUNTS)) for _ in range(2))
    return weights, backlog, service


@given(fleets())
def test_parts_add_up_to_the_share_and_none_is_below_zero(fleet):
    weights, backlog, _ = fleet
    for parts in (divide(*fleet), divide_by_demand(backlog)):
        assert (parts >= EVEN / len(backlog) - 1e-12).all()
        assert parts.sum(axis=0) == pytest.approx(np.ones(len(weights)))


@given(fleets())
def test_who_waits_nowhere_has_even_parts(fleet):
    weights, backlog, service = fleet
    backlog[:, 0] = 0.0
    assert divide(weights, backlog, service)[:, 0] == pytest.approx(1 / len(backlog))
    assert divide_by_demand(backlog)[:, 0] == pytest.approx(1 / len(backlog))


@given(fleets(least_replicas=2), st.floats(1e12, 1e15))
def test_a_flood_on_one_replica_gets_what_its_share_leaves_there(fleet, flood):
    weights, backlog, service = fleet
    backlog[:, 0], backlog[0, 0] = 0.0, flood
    owed = fleet_shares(weights, backlog, service)[0]
    elsewhere = service[1:, 0].sum()
    left = max(0.0, owed - elsewhere)
    even = EVEN / len(backlog) * owed
    got = divide(weights, backlog, service)[0, 0] * owed
    assert got <= even + (1 - EVEN) * left + 1e-3 * owed
    # A larger flood gets no more.
    backlog[0, 0] *= 10
    assert divide(weights, backlog, service)[0, 0] * owed == pytest.approx(got, rel=1e-3)


@given(fleets(), st.randoms(use_true_random=False))
def test_names_and_places_do_not_matter(fleet, random):
    weights, backlog, service = fleet
    rows, columns = list(range(len(backlog))), list(range(len(weights)))
    random.shuffle(rows)
    random.shuffle(columns)
    at = np.ix_(rows, columns)
    moved = divide(weights[columns], backlog[at], service[at])
    assert moved == pytest.approx(divide(weights, backlog, service)[at])


@given(fleets())
def test_shares_of_the_fleet_are_weighted_max_min(fleet):
    weights, backlog, service = fleet
    owed, asked = fleet_shares(weights, backlog, service), (backlog + service).sum(axis=0)
    assert (owed >= 0).all()
    assert (owed <= asked * (1 + 1e-9)).all()
    assert owed.sum() == pytest.approx(service.sum())
    # Who does not get all that it asks for gets most for its weight.
    short = owed < asked * (1 - 1e-6)
    levels = owed / weights
    assert levels[short] == pytest.approx(np.full(short.sum(), levels.max()))


@given(fleets())
def test_one_replica_keeps_the_contract(fleet):
    weights, backlog, service = (one[:1] if one.ndim == 2 else one for one in fleet)
    assert divide(weights, backlog, service) == pytest.approx(np.ones((1, len(weights))))
    assert parts_of(["a"], np.ones((1, 1)), np.ones((1, 1))) == [{}]


def test_by_hand_a_flood_beside_service_elsewhere():
    """Of 30 the last one asks for 6; the others are owed 12 each; the first has 8 elsewhere."""
    backlog = np.array([[95.0, 5.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    service = np.array([[5.0, 5.0, 0.0], [4.0, 3.0, 3.0], [4.0, 3.0, 3.0]])
    assert fleet_shares(np.ones(3), backlog, service) == pytest.approx([12.0, 12.0, 6.0])
    parts = divide(np.ones(3), backlog, service)
    assert parts[:, 0] == pytest.approx([EVEN / 3 + (1 - EVEN) * x / 12 for x in (4, 4, 4)])
    # Of the second one's 5 on the first replica, where 5 wait, half count as there already.
    assert parts[:, 1] == pytest.approx([EVEN / 3 + (1 - EVEN) * x / 12 for x in (6, 3, 3)])
    assert parts[:, 2] == pytest.approx([1 / 3] * 3)


def test_each_replica_is_told_its_part():
    shares = np.array([[0.8, 1 / 3], [0.1, 1 / 3], [0.1, 1 / 3]])
    told = parts_of(["a", "b"], shares, shares)
    assert [one["a"].share for one in told] == pytest.approx([2.4, 0.3, 0.3])
    assert [one["b"].share for one in told] == pytest.approx([1.0, 1.0, 1.0]), "nothing changes"
    assert [one["a"].of_limit(100) for one in told] == [80, 10, 10]
    assert [one["b"].of_limit(9) for one in told] == [3, 3, 3]
    assert [one["a"].of_limit(2) for one in told] == [1, 1, 1], "0 would be no request at all"
    assert told[0]["a"].of_limit(None) is None

"""Do lanes count each tenant's work, floor and bucket, and forget what did not happen?"""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts.contract import OTHER
from serving.lanes import DECODE_WORK, Lanes

TENANTS = ("a", "b", "f", "g")
counts = st.integers(0, 5000)


def lanes_of(bucket_s: float = 10.0, max_tenants: int = 8) -> Lanes:
    """Tenant `b` has twice the weight of the others, `f` and `g` have floors."""
    return Lanes({"b": 2.0}, {"f": 0.4, "g": 0.2}, max_tenants, bucket_s)


def figures(lanes: Lanes) -> dict[str, tuple[float, float]]:
    return {lane.tenant: (lane.work, lane.owed) for lane in lanes}


def test_tenants_beyond_the_most_share_a_lane_and_configured_ones_have_their_own():
    lanes = lanes_of(max_tenants=2)
    x, y = lanes.of("x"), lanes.of("y")
    assert lanes.of("x") is x
    assert lanes.of("z") is lanes.of("w")
    assert (lanes.of("z").tenant, y.tenant) == (OTHER, "y")
    f = lanes.of("f")
    assert (f.tenant, f.floor, lanes.floored) == ("f", 0.4, [f])
    assert len(list(lanes)) == 4


def test_the_lane_that_was_left_longest_ago_is_given_away_and_no_other():
    lanes = lanes_of(max_tenants=3)
    x, y, z = (lanes.enter(name) for name in "xyz")
    x.inside = y.waiting = z.running = 1
    f = lanes.enter("f")  # configured: always a lane of its own
    assert (f.floor, lanes.enter("w").tenant) == (0.4, OTHER)
    x.inside = y.waiting = z.running = 0
    lanes.enter("x")  # the last to come
    assert lanes.enter("w").tenant == "w"
    assert {lane.tenant for lane in lanes} == {"x", "z", "w", "f", OTHER}
    assert lanes.of("y").tenant == OTHER, "nothing is given away within a step"
    for number in range(100):
        assert lanes.enter(f"invented{number}").tenant == f"invented{number}"
    assert len(lanes) == 5
    assert lanes.of("f") is f


def test_work_is_prompt_tokens_and_two_per_decode_by_weight():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    lanes.admit(a, 100)
    lanes.admit(b, 100)
    assert (a.work, b.work) == (100.0, 50.0)
    a.decoding, b.decoding = 3, 4
    lanes.count_decodes()
    assert (a.work, b.work) == (100.0 + 3 * DECODE_WORK, 50.0 + 2 * DECODE_WORK)


def test_who_cannot_start_for_long_is_owed_no_more_than_the_most():
    lanes = lanes_of()
    lanes.most_owed = 500.0
    a, f = lanes.of("a"), lanes.of("f")
    a.decoding, f.waiting = 8, 1
    for _ in range(20_000):
        lanes.count_decodes()
    assert f.owed == 500.0


def test_an_idle_tenant_banks_nothing():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    a.waiting = 1
    lanes.admit(a, 1000)
    lanes.begin_backlog(b)
    assert b.work == 1000.0, "the least of those with a backlog"
    a.waiting = 0
    c = lanes.of("c")
    lanes.begin_backlog(c)
    assert c.work == 0.0, "nobody has one: where a stood when it was last served"
    b.work = 5000.0
    lanes.begin_backlog(b)
    assert b.work == 5000.0, "nor is anybody's work forgotten"


def test_sharing_starts_level():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    lanes.admit(a, 7000)
    lanes.level()
    assert (a.work, b.work) == (0.0, 0.0)
    lanes.begin_backlog(b)
    assert b.work == 0.0


def test_a_floor_is_owed_its_share_of_all_work_while_it_waits():
    lanes = lanes_of()
    a, f = lanes.of("a"), lanes.of("f")
    lanes.admit(a, 100)
    assert f.owed == 0.0, "it did not wait"
    f.waiting = 1
    lanes.admit(a, 100)
    a.decoding = 5
    lanes.count_decodes()
    assert f.owed == pytest.approx(0.4 * (100 + 5 * DECODE_WORK))
    assert lanes.admit(f, 30) == pytest.approx(30 - 0.4 * 30)
    assert f.owed == pytest.approx(0.4 * 110 + 0.4 * 30 - 30)
    lanes.admit(f, 500)
    assert f.owed == 0.0, "what it gets beyond its floor is not held against it"
    lanes.admit(a, 100)
    lanes.begin_backlog(f)
    assert f.owed == 0.0, "what a backlog was owed ends with it"


@given(
    before=st.fixed_dictionaries({name: st.tuples(counts, counts) for name in TENANTS}),
    waiting=st.sets(st.sampled_from(TENANTS)), tenant=st.sampled_from(TENANTS),
    tokens=st.integers(1, 3000),
)  # fmt: skip
def test_taking_back_restores_exactly(before, waiting, tenant, tokens):
    """A request is popped, cannot start, and comes back: nobody has gained or lost."""
    lanes = lanes_of()
    for name, (work, owed) in before.items():
        lane = lanes.of(name)
        lane.work, lane.owed = float(work), float(owed) * (lane.floor > 0)
        lane.waiting = int(name in waiting)
    was = copy.deepcopy(figures(lanes))
    lowered = lanes.admit(lanes.of(tenant), tokens)
    assert figures(lanes) != was
    lanes.take_back(lanes.of(tenant), tokens, lowered)
    for name, (work, owed) in figures(lanes).items():
        assert work == pytest.approx(was[name][0], abs=1e-6)
        assert owed == pytest.approx(was[name][1], abs=1e-6), name


def test_a_bucket_covers_what_comes_at_the_tenants_share_and_lends_what_is_idle():
    lanes = lanes_of(bucket_s=1.0)
    a, b = lanes.of("a"), lanes.of("b")
    a.inside = 1
    # Alone: all of the engine. 0.5 s of work per 0.5 s is always covered.
    assert all(lanes.overdraw(a, 0.5 * i, 0.5) <= 0.5 * i for i in range(100))
    b.inside = 1  # twice the weight: a's share is now a third, and it sends three times that
    covered = [lanes.overdraw(a, 50 + 0.5 * i, 0.5) <= 50 + 0.5 * i for i in range(10)]
    assert covered == [False] * 10
    assert lanes.overdraw(b, 50.0, 0.6) <= 50.0, "b has not used its own"
    a.ahead_s = b.ahead_s = 0.0
    covered = [lanes.overdraw(a, 100 + 1.5 * i, 0.3) <= 100 + 1.5 * i for i in range(100)]
    assert all(covered), "0.2 s of work per second is within a third"


def test_a_bucket_says_when_it_covers_a_burst():
    lanes = lanes_of(bucket_s=2.0)
    a = lanes.of("a")
    a.inside = 1
    assert [lanes.overdraw(a, 10.0, 1.0) for _ in range(4)] == [9.0, 10.0, 11.0, 12.0]

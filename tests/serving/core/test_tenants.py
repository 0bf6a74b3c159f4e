"""Are each tenant's work, floor and bucket counted, and what did not happen forgotten?"""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core import tenants
from serving.core.tenants import DECODE_WORK
from serving.perception.lanes import Lane, Lanes

TENANTS = ("a", "b", "f", "g")
counts = st.integers(0, 5000)


def lanes_of(bucket_s: float = 10.0, most_owed: float = 1e9) -> Lanes:
    """Tenant `b` has twice the weight of the others, `f` and `g` have floors."""
    return Lanes({"b": 2.0}, {"f": 0.4, "g": 0.2}, 8, bucket_s, most_owed)


def figures(lanes: Lanes) -> dict[str, tuple[float, float]]:
    return {lane.tenant: (lane.work, lane.owed) for lane in lanes}


def admit(lane: Lane, prompt_tokens: int) -> float:
    return tenants.admit(lane.rows.core, lane.row, prompt_tokens)


def begin_backlog(lane: Lane) -> None:
    tenants.begin_backlog(lane.rows.core, lane.row)


def overdraw(lane: Lane, arrival_s: float, work_s: float) -> float:
    return tenants.overdraw(lane.rows.core, lane.row, arrival_s, work_s)


def test_work_is_prompt_tokens_and_two_per_decode_by_weight():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    admit(a, 100)
    admit(b, 100)
    assert (a.work, b.work) == (100.0, 50.0)
    a.decoding, b.decoding = 3, 4
    lanes.count_decodes()
    assert (a.work, b.work) == (100.0 + 3 * DECODE_WORK, 50.0 + 2 * DECODE_WORK)


def test_a_decode_without_a_token_in_this_step_is_no_work():
    lanes = lanes_of()
    a, f = lanes.of("a"), lanes.of("f")
    a.decoding, f.decoding, f.waiting = 5, 2, 1
    lanes.count_decodes({a: 2, f: 2})
    assert (a.work, f.work) == (3 * DECODE_WORK, 0.0)
    assert f.owed == pytest.approx(0.4 * 3 * DECODE_WORK)
    lanes.count_decodes()
    assert a.work == 8 * DECODE_WORK, "silent for one step only"


def test_who_cannot_start_for_long_is_owed_no_more_than_the_most():
    lanes = lanes_of(most_owed=500.0)
    a, f = lanes.of("a"), lanes.of("f")
    a.decoding, f.waiting = 8, 1
    for _ in range(20_000):
        lanes.count_decodes()
    assert f.owed == 500.0


def test_an_idle_tenant_banks_nothing():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    a.waiting = 1
    admit(a, 1000)
    begin_backlog(b)
    assert b.work == 1000.0, "the least of those with a backlog"
    a.waiting = 0
    c = lanes.of("c")
    begin_backlog(c)
    assert c.work == 0.0, "nobody has one: where a stood when it was last served"
    b.work = 5000.0
    begin_backlog(b)
    assert b.work == 5000.0, "nor is anybody's work forgotten"


def test_sharing_starts_level():
    lanes = lanes_of()
    a, b = lanes.of("a"), lanes.of("b")
    admit(a, 7000)
    tenants.level(lanes.core)
    assert (a.work, b.work) == (0.0, 0.0)
    begin_backlog(b)
    assert b.work == 0.0


def test_a_floor_is_owed_its_share_of_all_work_while_it_waits():
    lanes = lanes_of()
    a, f = lanes.of("a"), lanes.of("f")
    admit(a, 100)
    assert f.owed == 0.0, "it did not wait"
    f.waiting = 1
    admit(a, 100)
    a.decoding = 5
    lanes.count_decodes()
    assert f.owed == pytest.approx(0.4 * (100 + 5 * DECODE_WORK))
    assert admit(f, 30) == pytest.approx(30 - 0.4 * 30)
    assert f.owed == pytest.approx(0.4 * 110 + 0.4 * 30 - 30)
    admit(f, 500)
    assert f.owed == 0.0, "what it gets beyond its floor is not held against it"
    admit(a, 100)
    begin_backlog(f)
    assert f.owed == 0.0, "what a backlog was owed ends with it"


@settings(deadline=None)
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
    lowered = admit(lanes.of(tenant), tokens)
    assert figures(lanes) != was
    tenants.take_back(lanes.core, lanes.of(tenant).row, tokens, lowered)
    for name, (work, owed) in figures(lanes).items():
        assert work == pytest.approx(was[name][0], abs=1e-6)
        assert owed == pytest.approx(was[name][1], abs=1e-6), name


def test_a_bucket_covers_what_comes_at_the_tenants_share_and_lends_what_is_idle():
    lanes = lanes_of(bucket_s=1.0)
    a, b = lanes.of("a"), lanes.of("b")
    a.inside = 1
    # Alone: all of the engine. 0.5 s of work per 0.5 s is always covered.
    assert all(overdraw(a, 0.5 * i, 0.5) <= 0.5 * i for i in range(100))
    b.inside = 1  # twice the weight: a's share is now a third, and it sends three times that
    covered = [overdraw(a, 50 + 0.5 * i, 0.5) <= 50 + 0.5 * i for i in range(10)]
    assert covered == [False] * 10
    assert overdraw(b, 50.0, 0.6) <= 50.0, "b has not used its own"
    a.ahead_s = b.ahead_s = 0.0
    covered = [overdraw(a, 100 + 1.5 * i, 0.3) <= 100 + 1.5 * i for i in range(100)]
    assert all(covered), "0.2 s of work per second is within a third"


def test_a_bucket_says_when_it_covers_a_burst():
    lanes = lanes_of(bucket_s=2.0)
    a = lanes.of("a")
    a.inside = 1
    assert [overdraw(a, 10.0, 1.0) for _ in range(4)] == [9.0, 10.0, 11.0, 12.0]

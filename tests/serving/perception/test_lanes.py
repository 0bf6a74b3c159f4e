"""Is every request counted in its tenant's lane, however many tenants are invented?"""

import pytest

from serving.contracts import TenantPart
from serving.contracts.contract import MAX_FLOORS, OTHER
from serving.core import batch
from serving.perception.lanes import LEAST_LANE_WEIGHT, Lane, Lanes


def lanes_of(max_tenants: int) -> Lanes:
    """Tenant `b` has twice the weight of the others, `f` and `g` have floors."""
    return Lanes({"b": 2.0}, {"f": 0.4, "g": 0.2}, max_tenants)


def arrive(lanes: Lanes, tenant: str) -> Lane:
    """A request of the tenant comes in, and has left when the next one comes."""
    lane = lanes.enter(tenant)
    lanes.core.requests["tenant"][0] = lane.row
    batch.arrive(lanes.core, 0, 1.0, 1.0)
    lane.inside = 0
    return lane


def test_tenants_beyond_the_most_share_a_lane_and_configured_ones_have_their_own():
    lanes = lanes_of(max_tenants=2)
    x, y = lanes.of("x"), lanes.of("y")
    assert lanes.of("x") is x
    assert lanes.of("z") is lanes.of("w")
    assert (lanes.of("z").tenant, y.tenant) == (OTHER, "y")
    f = lanes.of("f")
    assert (f.tenant, f.floor) == ("f", 0.4)
    assert len(list(lanes)) == 4
    assert len({lane.row for lane in lanes}) == 4


def test_the_lane_that_was_left_longest_ago_is_given_away_and_no_other():
    lanes = lanes_of(max_tenants=3)
    x, y, z = (arrive(lanes, name) for name in "xyz")
    x.inside = y.waiting = z.running = 1
    f = lanes.enter("f")  # configured: always a lane of its own
    assert (f.floor, lanes.enter("w").tenant) == (0.4, OTHER)
    x.inside = y.waiting = z.running = 0
    arrive(lanes, "x")  # the last to come
    assert lanes.enter("w").tenant == "w"
    assert {lane.tenant for lane in lanes} == {"x", "z", "w", "f", OTHER}
    assert lanes.of("y").tenant == OTHER, "nothing is given away within a step"
    for number in range(100):
        assert lanes.enter(f"invented{number}").tenant == f"invented{number}"
    assert len(lanes) == 5
    assert lanes.of("f") is f
    assert lanes.core.engine["lanes"][0] <= 6, "rows are used again"


def test_who_gets_a_lane_that_was_given_away_begins_at_nothing():
    lanes = lanes_of(max_tenants=1)
    x = lanes.enter("x")
    x.work, x.owed, x.ahead_s, x.decoding = 7e6, 5.0, 99.0, 3
    y = lanes.enter("y")
    assert y.row == x.row
    assert (y.weight, y.work, y.owed, y.ahead_s, y.decoding) == (1.0, 0.0, 0.0, 0.0, 0)


def test_lanes_beyond_those_there_was_room_for_keep_what_was_counted():
    """A contract may list more tenants than there was room for at the start."""
    lanes = lanes_of(max_tenants=1)
    x = lanes.enter("x")
    x.work, x.inside = 5.0, 1
    listed = {f"t{i}": float(1 + i) for i in range(40)}
    lanes.promise(listed, {}, 1.0)
    for name, weight in listed.items():
        assert lanes.enter(name).weight == weight
    assert (x.work, x.inside, lanes.of("x")) == (5.0, 1, x)
    assert len({lane.row for lane in lanes}) == 41


def test_another_contract_takes_a_floor_and_what_was_owed_to_it():
    lanes = lanes_of(max_tenants=4)
    f = lanes.of("f")
    f.owed = 100.0
    lanes.promise({}, {"f": 0.2}, 1.0)
    assert (f.floor, f.owed) == (0.2, 100.0)
    lanes.promise({"f": 3.0}, {}, 0.5)
    assert (f.weight, f.floor, f.owed) == (3.0, 0.0, 0.0)
    assert lanes.of("b").weight == 0.5, "no weight of its own any more"


def test_parts_are_factors_on_weight_and_floor_and_outlast_a_contract():
    lanes = lanes_of(max_tenants=4)
    b, f = lanes.of("b"), lanes.of("f")
    lanes.divide({"b": TenantPart(0.25), "f": TenantPart(0.5), "x": TenantPart(3.0)})
    assert (b.weight, f.weight, f.floor) == (0.5, 0.5, 0.2)
    assert lanes.of("x").weight == 3.0, "also of a tenant that comes later"
    lanes.promise({"b": 4.0}, {"f": 0.1}, 1.0)
    assert (b.weight, f.floor) == (1.0, 0.05)
    lanes.divide({})
    assert (b.weight, f.weight, f.floor) == (4.0, 1.0, 0.1)


def test_floors_that_are_more_than_a_replica_can_promise_shrink_alike():
    lanes = lanes_of(max_tenants=4)
    f, g = lanes.of("f"), lanes.of("g")
    lanes.divide({"f": TenantPart(3.0), "g": TenantPart(3.0)})
    assert f.floor + g.floor == pytest.approx(MAX_FLOORS)
    assert f.floor == pytest.approx(2 * g.floor)


def test_a_part_of_nothing_leaves_a_weight_that_can_be_divided_by():
    lanes = lanes_of(max_tenants=4)
    lanes.divide({"b": TenantPart(0.0)})
    assert lanes.of("b").weight == LEAST_LANE_WEIGHT

"""Does compiled code find the same arrays at their addresses, also after these have grown?"""

import numpy as np

from serving.core.calls import addresses, core_at
from serving.core.state import Core, new_core, with_lanes, with_rows
from serving.perception.lanes import Lanes


def holds_the_same(at: np.ndarray, core: Core) -> bool:
    """Whether each array at the addresses is the core's own, of the same shape and type."""
    return all(
        found.ctypes.data == mine.ctypes.data
        and (found.shape, found.dtype) == (mine.shape, mine.dtype)
        for found, mine in zip(core_at(at), core, strict=True)
    )


def test_the_arrays_at_the_addresses_are_the_cores():
    core = new_core(8, 2)
    other = with_lanes(with_rows(core, 32), 5)
    assert holds_the_same(addresses(core), core)
    assert holds_the_same(addresses(other), other)
    assert not holds_the_same(addresses(other), core)


def test_whoever_holds_the_addresses_has_the_new_ones_when_the_arrays_grow():
    rows = Lanes({}, {}, 4).rows
    at, before = rows.at, rows.core
    rows.core = with_rows(before, 2 * len(before.requests))
    assert at is rows.at
    assert holds_the_same(at, rows.core)
    assert not holds_the_same(at, before)

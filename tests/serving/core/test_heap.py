"""Is a heap's root the least of it, whatever was put in or taken out, in whatever order?"""

import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core import heap
from serving.core.state import NONE

ROWS, HEAPS = 20, 2
ranks_of = st.lists(
    st.tuples(st.sampled_from([-math.inf, -1.0, 0.0, 2.5, math.inf]), st.integers(-2, 2)),
    min_size=ROWS, max_size=ROWS,
)  # fmt: skip
orders = st.permutations(range(ROWS))


class Heaps:
    """Heaps that share the arrays, and beside them what is in each."""

    def __init__(self, ranks: list[tuple[float, int]], last: list[int]) -> None:
        """Ranks may be equal but for `last`, which decides then."""
        self.ranks = np.array([[*rank, at] for rank, at in zip(ranks, last, strict=True)], float)
        self.links = np.full((ROWS, 3), 99)
        self.roots, self.inside = [NONE] * HEAPS, [set[int]() for _ in range(HEAPS)]

    def insert(self, which: int, row: int) -> None:
        self.roots[which] = heap.insert(self.ranks, self.links, self.roots[which], row)
        self.inside[which].add(row)

    def remove(self, which: int, row: int) -> None:
        self.roots[which] = heap.remove(self.ranks, self.links, self.roots[which], row)
        self.inside[which].remove(row)

    def in_order(self, which: int) -> list[int]:
        return sorted(self.inside[which], key=lambda row: tuple(self.ranks[row]))

    def drain(self, which: int) -> list[int]:
        """Rows in the order in which each is the root."""
        rows = []
        while self.roots[which] != NONE:
            rows.append(int(self.roots[which]))
            self.remove(which, rows[-1])
        return rows


@settings(deadline=None, max_examples=200)
@given(
    ranks=ranks_of, last=orders,
    operations=st.lists(
        st.tuples(st.sampled_from(["toggle", "toggle", "pop"]), st.integers(0, ROWS - 1)),
        max_size=80,
    ),
)  # fmt: skip
def test_the_root_is_the_least_after_whatever_was_put_in_and_taken_out(ranks, last, operations):
    heaps = Heaps(ranks, last)
    for name, row in operations:
        which = row % HEAPS
        if name == "pop" and heaps.inside[which]:
            heaps.remove(which, int(heaps.roots[which]))
        elif row in heaps.inside[which]:
            heaps.remove(which, row)
        else:
            heaps.insert(which, row)
        for root, in_order in zip(heaps.roots, map(heaps.in_order, range(HEAPS)), strict=True):
            assert root == (in_order[0] if in_order else NONE)
    for which in range(HEAPS):
        expected = heaps.in_order(which)
        assert heaps.drain(which) == expected


@settings(deadline=None)
@given(ranks=ranks_of, last=orders, one=orders, other=orders, gone=st.sets(st.integers(0, 19)))
def test_equal_content_gives_the_same_order_whatever_its_history(ranks, last, one, other, gone):
    drained = []
    for order, remove in itertools.product((one, other), (sorted(gone), sorted(gone)[::-1])):
        heaps = Heaps(ranks, last)
        for row in order:
            heaps.insert(0, row)
        for row in remove:
            heaps.remove(0, row)
        drained.append(heaps.drain(0))
    assert drained == [drained[0]] * 4
    assert sorted(drained[0]) == sorted(set(range(ROWS)) - gone)


def test_it_stands_a_hundred_thousand_rows_in_the_worst_orders():
    """A recursion, or links that are walked from one end, would not."""
    count = 100_000
    ranks = np.zeros((count, 2))
    ranks[:, 1] = np.arange(count)
    for order in (range(count), range(count - 1, -1, -1)):
        links, root = np.full((count, 3), NONE), NONE
        for row in order:
            root = heap.insert(ranks, links, root, row)
        for row in range(0, count, 2):
            root = heap.remove(ranks, links, root, row)
        for row in range(1, count, 2):
            assert root == row
            root = heap.remove(ranks, links, root, row)
        assert root == NONE

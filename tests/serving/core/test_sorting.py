"""Are rows sorted by all of their ranks, however many there are and however they stood?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.core.sorting import sort


def sorted_by(ranks: np.ndarray, rows: np.ndarray) -> list[int]:
    """What `sort` makes of it; the second half of the ranks is its room."""
    room = np.full((2 * len(ranks), 6), np.nan)
    room[: len(ranks)] = ranks
    taken = rows.copy()
    sort(room, taken, len(rows))
    assert np.array_equal(room[: len(ranks)], ranks), "the ranks themselves stay"
    return [int(row) for row in taken]


@hypothesis_settings(deadline=None)
@given(st.data())
def test_rows_are_in_the_order_of_their_ranks(data):
    firsts = st.sampled_from((-np.inf, -1.0, 0.0, 2.0, np.inf))
    first = data.draw(st.lists(firsts, min_size=1, max_size=80))
    ranks = np.zeros((len(first), 6))
    ranks[:, 0] = first
    ranks[:, 1] = data.draw(st.lists(st.integers(0, 3), min_size=len(first), max_size=len(first)))
    ranks[:, 2] = np.arange(len(first))  # no two are equal
    rows = np.array(data.draw(st.permutations(range(len(first)))))
    rows = rows[: data.draw(st.integers(0, len(rows)))]
    expected = rows[np.lexsort(ranks[rows].T[::-1])].tolist()
    assert sorted_by(ranks, rows) == expected


@pytest.mark.parametrize("order", ["as it is", "reversed", "mixed"])
def test_many(order):
    count = 5000
    ranks = np.random.default_rng(1).random((count, 6))
    ranks[:, 0] = np.floor(20 * ranks[:, 0])
    expected = np.lexsort(ranks.T[::-1])
    rows = {
        "as it is": expected, "reversed": expected[::-1],
        "mixed": np.random.default_rng(2).permutation(count),
    }[order]  # fmt: skip
    assert sorted_by(ranks, rows) == expected.tolist()

"""In which order do rows stand? Sorting without new arrays, so that a step makes none."""

import numpy as np

from serving.core.heap import is_before
from serving.core.jit import compiled_in_place

_BLOCK = 8  # so many rows are sorted by insertion


@compiled_in_place
def sort(ranks: np.ndarray, rows: np.ndarray, count: int) -> None:
    """Bring the first `count` of `rows` into the order of their ranks (merge sort).

    What is compared most, the first rank, is copied beside its row.

    Args:
        ranks: compared from the first column on, lower first; no two may be equal. The second
            half of `ranks` is room for this, four columns at least.
        rows: of the first half, shape (at least count,).
        count: how many.
    """
    room, key, name = ranks[len(ranks) // 2 :], 0, 1  # columns of `room`
    for i in range(count):
        row, place = rows[i], i
        first = ranks[row, 0]
        while place % _BLOCK and _is_after(ranks, room[place - 1], 0, first, row):
            room[place, key], room[place, name] = room[place - 1, key], room[place - 1, name]
            place -= 1
        room[place, key], room[place, name] = first, row
    width = _BLOCK
    while width < count:
        for start in range(0, count, 2 * width):
            middle = min(start + width, count)
            _merge(ranks, room, key, start, middle, min(start + 2 * width, count))
        key, name, width = 2 - key, 3 - key, 2 * width
    for i in range(count):
        rows[i] = room[i, name]


@compiled_in_place
def _merge(
    ranks: np.ndarray, room: np.ndarray, key: int, start: int, middle: int, end: int
) -> None:
    """Merge two runs of `room`, whose columns begin at `key`, into the two other columns."""
    one, other = start, middle
    for place in range(start, end):
        takes_other = one == middle
        if one < middle and other < end:
            row = int(room[other, key + 1])
            takes_other = _is_after(ranks, room[one], key, room[other, key], row)
        taken = other if takes_other else one
        room[place, 2 - key], room[place, 3 - key] = room[taken, key], room[taken, key + 1]
        one += not takes_other
        other += takes_other


@compiled_in_place
def _is_after(ranks: np.ndarray, one: np.ndarray, key: int, first: float, row: int) -> bool:
    if one[key] == first:
        return is_before(ranks, row, int(one[key + 1]))
    return bool(one[key] > first)


@compiled_in_place
def push(ranks: np.ndarray, rows: np.ndarray, count: int, row: int) -> None:
    """Put a row into a heap of `count` rows of which `rows[0]` has the highest rank."""
    place = count
    while place > 0 and is_before(ranks, rows[(place - 1) // 2], row):
        rows[place] = rows[(place - 1) // 2]
        place = (place - 1) // 2
    rows[place] = row


@compiled_in_place
def sift(ranks: np.ndarray, rows: np.ndarray, start: int, end: int) -> None:
    """Restore the heap of `rows[start:end]` after its first row was replaced."""
    row, place = rows[start], start
    child = 2 * start + 1
    while child < end:
        if child + 1 < end and is_before(ranks, rows[child], rows[child + 1]):
            child += 1
        if not is_before(ranks, row, rows[child]):
            break
        rows[place] = rows[child]
        place, child = child, 2 * child + 1
    rows[place] = row

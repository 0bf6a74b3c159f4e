"""In which order do rows stand? Sorting without new arrays, so that a step makes none."""

import numpy as np

from serving.core.heap import is_before
from serving.core.jit import compiled_in_place


@compiled_in_place
def sort(ranks: np.ndarray, rows: np.ndarray, count: int) -> None:
    """Bring the first `count` of `rows` into the order of their ranks (heapsort).

    Args:
        ranks: compared from the first column on, lower first; no two may be equal.
        rows: of `ranks`, shape (at least count,).
        count: how many.
    """
    for start in range(count // 2 - 1, -1, -1):
        sift(ranks, rows, start, count)
    for end in range(count - 1, 0, -1):
        rows[0], rows[end] = rows[end], rows[0]
        sift(ranks, rows, 0, end)


@compiled_in_place
def push(ranks: np.ndarray, rows: np.ndarray, count: int, row: int) -> None:
    """Put a row into a heap of `count` rows of which `rows[0]` has the highest rank."""
    place = count
    while place > 0 and is_before(ranks, rows[(place - 1) // 2], row):
        rows[place] = rows[(place - 1) // 2]
        place = (place - 1) // 2
    rows[place] = row


@compiled_in_place
def replace_first(ranks: np.ndarray, rows: np.ndarray, count: int, row: int) -> int:
    """Put a row into a heap as of `push`, and take out the one of highest rank, maybe itself."""
    if count == 0 or not is_before(ranks, row, rows[0]):
        return row
    first = rows[0]
    rows[0] = row
    sift(ranks, rows, 0, count)
    return int(first)


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

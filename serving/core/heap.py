"""Which request comes first? A pairing heap over rows, by ranks that are compared in order.

Any number of heaps share the arrays, each known by its root. Inserting is O(1), taking out any row
O(log n) amortised (Fredman, Sedgewick, Sleator and Tarjan 1986). Ranks must differ, so that the
order depends on them alone and not on the heap's history.

Args of all functions:
    ranks: shape (rows, columns); lower is first.
    links: first child, next sibling, and previous sibling or parent of each row, shape (rows, 3).
    root: row of the first one; NONE when the heap is empty.
"""

import numpy as np

from serving.core.jit import compiled_in_place
from serving.core.state import BACK, CHILD, NEXT, NONE


@compiled_in_place
def is_before(ranks: np.ndarray, row: int, other: int) -> bool:
    """Whether `row` goes before `other`."""
    for column in range(ranks.shape[1]):
        if ranks[row, column] != ranks[other, column]:
            return bool(ranks[row, column] < ranks[other, column])
    return False


@compiled_in_place
def meld(ranks: np.ndarray, links: np.ndarray, one: int, other: int) -> int:
    """One heap of two, given by their roots; the new root."""
    if one == NONE:
        return other
    if other == NONE:
        return one
    if is_before(ranks, other, one):
        one, other = other, one
    child = links[one, CHILD]
    links[other, NEXT], links[other, BACK] = child, one
    if child != NONE:
        links[child, BACK] = other
    links[one, CHILD] = other
    return one


@compiled_in_place
def insert(ranks: np.ndarray, links: np.ndarray, root: int, row: int) -> int:
    """Put in a row that is in no heap; the new root."""
    links[row, CHILD] = links[row, NEXT] = links[row, BACK] = NONE
    return meld(ranks, links, root, row)


@compiled_in_place
def chain(links: np.ndarray, first: int, row: int) -> int:
    """Put a row before a list of rows that `join` will make a heap of; the list's new first."""
    links[row, CHILD], links[row, NEXT], links[row, BACK] = NONE, first, NONE
    return row


@compiled_in_place
def join(ranks: np.ndarray, links: np.ndarray, first: int) -> int:
    """One heap of a list of rows, in pairs, round by round: O(n), and none has many children.

    Were they inserted one by one, the first ones to be taken out would cost O(n) each.
    """
    while first != NONE and links[first, NEXT] != NONE:
        paired, one = NONE, first
        while one != NONE:
            other = links[one, NEXT]
            after = NONE if other == NONE else links[other, NEXT]
            links[one, NEXT] = NONE
            pair = meld(ranks, links, one, other)
            links[pair, NEXT] = paired
            paired, one = pair, after
        first = paired
    return first


@compiled_in_place
def remove(ranks: np.ndarray, links: np.ndarray, root: int, row: int) -> int:
    """Take out a row of this heap; the new root."""
    rest = _join_children(ranks, links, row)
    if row == root:
        return rest
    before, after = links[row, BACK], links[row, NEXT]
    if links[before, CHILD] == row:
        links[before, CHILD] = after
    else:
        links[before, NEXT] = after
    if after != NONE:
        links[after, BACK] = before
    return meld(ranks, links, root, rest)


@compiled_in_place
def _join_children(ranks: np.ndarray, links: np.ndarray, row: int) -> int:
    """One heap of a row's children: in pairs from the left, then from the right."""
    paired, child = NONE, links[row, CHILD]
    while child != NONE:
        other = links[child, NEXT]
        after = NONE if other == NONE else links[other, NEXT]
        links[child, NEXT] = links[child, BACK] = NONE
        if other != NONE:
            links[other, NEXT] = links[other, BACK] = NONE
        pair = meld(ranks, links, child, other)
        links[pair, NEXT] = paired  # a stack of pairs, the last one on top
        paired, child = pair, after
    root = NONE
    while paired != NONE:
        below = links[paired, NEXT]
        links[paired, NEXT] = NONE
        root = meld(ranks, links, root, paired)
        paired = below
    links[row, CHILD] = NONE
    return root

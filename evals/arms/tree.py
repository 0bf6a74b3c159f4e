"""Which fixed arm goes with which states? A small decision tree, cost-sensitive and greedy.

A row is one window of one run: the states at its start, and for each setting how many of the
window's requests missed their SLOs under it. A split is chosen so that the best setting of each
side leaves the fewest misses (as in CART, Breiman et al. 1984, with the misses in place of an
impurity). `threshold` is the tree of depth 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evals.suite.tuned import Node

Floats = NDArray[np.float64]
_CUTS = 24  # thresholds tried per state: quantiles
_LEAST_SHARE = 0.04  # of all rows in a leaf, so that no leaf is about a single run
_LEAST_GAIN = 0.002  # of all misses: less is chance


def leaf_of(nodes: Sequence[Node], states: Mapping[str, float]) -> str:
    """The setting that a tree says."""
    node = nodes[0]
    while len(node) > 1:
        name, threshold, below, above = node
        node = nodes[above if states[name] > threshold else below]
    return node[0]


def grow(
    states: Floats, misses: Floats, names: Sequence[str], settings: Sequence[str], depth: int
) -> tuple[Node, ...]:
    """A tree; node 0 is its root.

    Args:
        states: shape (rows, names).
        misses: under each setting, shape (rows, settings).
        names: of the columns of `states`.
        settings: of the columns of `misses`; of equal ones the first is taken.
        depth: most splits above a leaf.
    """
    nodes: list[Node] = []
    least_rows = max(1, int(_LEAST_SHARE * len(states)))
    least_gain = _LEAST_GAIN * float(misses.sum(axis=0).min())

    def add(rows: NDArray[np.bool_], depth: int) -> int:
        place = len(nodes)
        nodes.append((settings[int(misses[rows].sum(axis=0).argmin())],))
        best, gain = None, least_gain
        for column in range(len(names)) if depth else ():
            for cut in _cuts(states[rows, column]):
                above = rows & (states[:, column] > cut)
                below = rows & ~above
                if min(above.sum(), below.sum()) < least_rows:
                    continue
                gained = _fewest(misses[rows]) - _fewest(misses[above]) - _fewest(misses[below])
                if gained > gain:
                    best, gain = (column, cut, below, above), gained
        if best is not None:
            column, cut, below, above = best
            nodes[place] = (
                names[column], cut, add(below, depth - 1), add(above, depth - 1)
            )  # fmt: skip
        return place

    add(np.ones(len(states), np.bool_), depth)
    return tuple(nodes)


def _fewest(misses: Floats) -> float:
    return float(misses.sum(axis=0).min())


def _cuts(values: Floats) -> list[float]:
    """Thresholds between values that occur, at most `_CUTS`."""
    found = np.unique(values)
    middles = (found[1:] + found[:-1]) / 2
    if len(middles) > _CUTS:
        middles = np.unique(np.quantile(middles, np.linspace(0, 1, _CUTS), method="nearest"))
    return [float(cut) for cut in middles]

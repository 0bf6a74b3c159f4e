"""What can be learnt from situations whose best settings are known? A tree, and nearest neighbours.

Both go by the controller's states and learn from the development half alone. How deep the tree is,
and how many neighbours are asked, is what chose best on the seeds that a first fit had not seen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evals.arms.switching import STATES, States, grow, leaf_of
from evals.suite.tuned import Node

Floats = NDArray[np.float64]
DEPTHS, NEIGHBOURS = (1, 2, 3, 4), (4, 16, 64)


@dataclass(frozen=True, slots=True)
class Seen:
    """Situations to learn from: states (rows, STATES), worths (rows, settings), seeds (rows,)."""

    states: Floats
    worths: Floats
    seeds: NDArray[np.int64]
    settings: tuple[str, ...]

    def only(self, rows: NDArray[np.bool_]) -> "Seen":
        """Some of them."""
        return Seen(self.states[rows], self.worths[rows], self.seeds[rows], self.settings)


@dataclass(frozen=True, slots=True)
class Tree:
    """One setting by thresholds on states."""

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, seen: Seen, depth: int) -> "Tree":
        """Grown on what each setting misses."""
        return cls(grow(seen.states, 1.0 - seen.worths, STATES, seen.settings, depth))

    def ranked(self, states: States) -> list[str]:
        """The setting of the leaf."""
        return [leaf_of(self.nodes, states)]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """All settings by what they were worth in the most similar situations.

    Counts and seconds of a queue span orders of magnitude: distances are of arsinh(state), each in
    its standard deviations.
    """

    seen: Seen
    places: Floats  # (rows, STATES)
    scales: Floats  # (STATES,)
    count: int

    @classmethod
    def of(cls, seen: Seen, count: int) -> "Neighbours":
        """Of all of them, `count` are asked."""
        logs = np.arcsinh(seen.states)
        spread = logs.std(axis=0)
        scales = np.where(spread > 0.0, spread, 1.0)
        return cls(seen, logs / scales, scales, min(count, len(logs)))

    def ranked(self, states: States) -> list[str]:
        """The best first."""
        place = np.arcsinh([states[name] for name in STATES]) / self.scales
        away = np.square(self.places - place).sum(axis=1)
        nearest = np.argsort(away, kind="stable")[: self.count]
        worths = self.seen.worths[nearest].mean(axis=0)
        return [self.seen.settings[i] for i in np.argsort(-worths, kind="stable")]


Learner = TypeVar("Learner", Tree, Neighbours)


@dataclass(frozen=True, slots=True)
class Learnt:
    """All that is learnt on a development half."""

    best_fixed: str
    tree: Tree
    neighbours: Neighbours

    @classmethod
    def of(cls, seen: Seen) -> "Learnt":
        """From these situations, of two seeds or more."""
        best = seen.settings[int(seen.worths.mean(axis=0).argmax())]
        return cls(best, _fitted(seen, Tree.of, DEPTHS), _fitted(seen, Neighbours.of, NEIGHBOURS))


def _fitted(
    seen: Seen, fit: Callable[[Seen, int], Learner], sizes: Sequence[int]
) -> Learner:
    """With the size whose choices were worth most on the seeds, even or odd, it was not fit on."""

    def worth(size: int) -> float:
        total = 0.0
        for parity in (0, 1):
            held_out = seen.only(seen.seeds % 2 == parity)
            learner = fit(seen.only(seen.seeds % 2 != parity), size)
            for values, worths in zip(held_out.states, held_out.worths, strict=True):
                choice = learner.ranked(dict(zip(STATES, values, strict=True)))[0]
                total += worths[seen.settings.index(choice)]
        return total

    return fit(seen, max(sizes, key=worth))

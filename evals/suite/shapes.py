"""Which shapes does a suite describe traffic with? Lengths, and levels over time."""

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z90 = 1.2815515655446004  # 90th percentile of the standard normal


@dataclass(frozen=True, slots=True)
class Lengths:
    """A lognormal length in tokens by its median and 90th percentile, cut at `most`.

    With `tail`, the tenth above p90 is Pareto with that exponent instead.
    """

    p50: float
    p90: float
    most: int
    tail: float | None = None

    def draw(self, rng: random.Random) -> int:
        """One length: exp(N(ln p50, sigma)), sigma = ln(p90/p50)/z90, within 1..most.

        Above p90 with a tail: p90 * (1 - u)^(-1/tail), u uniform.
        """
        sigma = math.log(self.p90 / self.p50) / Z90
        length = rng.lognormvariate(math.log(self.p50), sigma)
        if self.tail is not None and length > self.p90:
            length = self.p90 * rng.paretovariate(self.tail)
        return max(1, min(self.most, round(length)))


@dataclass(frozen=True, slots=True)
class Shift:
    """A level that goes from 0 to 1 at the first flip, back at the second, and so on.

    Attributes:
        flips: shares of the run where each change begins, increasing.
        width: share of the run that a change takes; 0 is a step.
    """

    flips: tuple[float, ...]
    width: float = 0.0

    def level(self, shares: Floats) -> Floats:
        """The level (0 to 1) at each share of the run; same shape."""
        if self.width == 0:
            return (np.searchsorted(self.flips, shares, side="right") % 2).astype(float)
        ends = [(flip + part * self.width) for flip in self.flips for part in (0, 1)]
        levels = [(i + part) % 2 for i in range(len(self.flips)) for part in (0, 1)]
        return np.interp(shares, ends, levels)

"""How long is a case, and which shapes does its traffic have? Lengths, and levels over time.

Traffic goes on after what counts: whoever puts requests off would otherwise finish them on an
engine to which nothing comes any more, or not before the end although in time.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z90 = 1.2815515655446004  # 90th percentile of the standard normal


@dataclass(frozen=True, slots=True)
class Span:
    """A case's time, from 0 s on: warm-up, what counts, tail. Requests arrive in all of it."""

    counted_s: float  # length of what counts
    # warmup_s, tail_s: of what is served before and after it, and counts for nothing.
    warmup_s: float = 0.0
    tail_s: float = 0.0

    @property
    def counted_until_s(self) -> float:
        """When the tail begins."""
        return self.warmup_s + self.counted_s

    @property
    def until_s(self) -> float:
        """When all ends, whatever is still inside."""
        return self.counted_until_s + self.tail_s

    def counts(self, arrival_s: float) -> bool:
        """Whether a request that arrives then counts."""
        return self.warmup_s <= arrival_s <= self.counted_until_s


@dataclass(frozen=True, slots=True)
class Lognormal:
    """A lognormal quantity by its median and 90th percentile; `most` cuts it."""

    p50: float
    p90: float
    most: float

    def draw_real(self, count: int, rng: np.random.Generator) -> Floats:
        """So many: exp(N(ln p50, sigma)), sigma = ln(p90/p50)/z90, at most `most`; (count,)."""
        sigma = math.log(self.p90 / self.p50) / Z90
        return np.minimum(rng.lognormal(math.log(self.p50), sigma, count), self.most)

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """So many lengths in tokens, each at least 1; (count,)."""
        lengths: NDArray[np.int32] = np.rint(self.draw_real(count, rng)).astype(np.int32)
        return np.maximum(lengths, 1)


@dataclass(frozen=True, slots=True)
class Change:
    """For a while, a tenant (None: everybody) sends `factor` times as much."""

    factor: float  # 0: nothing
    # from_s, until_s: since the start of the case; infinite: to its end.
    from_s: float
    until_s: float
    over_s: float = 0.0  # the rate takes so long to get there, and as long to come back; 0: at once
    tenant: str | None = None  # whose; None: everybody's

    def factors(self, moments_s: Floats) -> Floats:
        """The factor at each moment; same shape."""
        if self.over_s == 0:
            inside = (moments_s >= self.from_s) & (moments_s < self.until_s)
            return np.where(inside, self.factor, 1.0)
        up = np.clip((moments_s - self.from_s) / self.over_s, 0, 1)
        down = np.clip((moments_s - self.until_s) / self.over_s, 0, 1)
        return 1 + (self.factor - 1) * (up - down)

    @property
    def edges_s(self) -> tuple[float, ...]:
        """When something begins or ends."""
        pairs = ((edge, edge + self.over_s) for edge in (self.from_s, self.until_s))
        return tuple(at for pair in pairs for at in pair if math.isfinite(at))

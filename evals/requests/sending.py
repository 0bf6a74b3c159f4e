"""What does somebody send at a given rate? Independent requests, by seed.

A rate is raised or lowered by more or fewer requests in the same time. The gaps between them keep
their family and shape, so bursts keep their coefficient of variation: of a thinned stream they
would come nearer to Poisson, of a stretched one the ups and downs of the day would be stretched,
too. Changes of a suite are a clock: it runs faster where more is sent.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from evals.requests.columns import RequestColumns
from evals.suite.shapes import Change
from serving.contracts import TraceRequest

Floats = NDArray[np.float64]
GRID = 4000  # steps over a case; a ramp's clock is off by less than the square of one


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of time to fill."""

    length_s: float  # it begins at 0 s
    seed: int  # of what is drawn in it
    changes: tuple[Change, ...] = ()  # of its suite


class Sender(Protocol):
    """Whatever fills a block with requests."""

    def send(self, factor: float, block: Block) -> RequestColumns:
        """Its requests in a block, at `factor` times its own rate; the same for the same seed."""
        ...


class Lengths(Protocol):
    """Where lengths in tokens are drawn from."""

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """So many; (count,)."""
        ...


class Stretch(NamedTuple):
    """A time in which a sender's rate and lengths stay as they are."""

    # from_s, until_s: on the block's clock.
    from_s: float
    until_s: float
    requests: float  # so many are to be expected at its own rate
    # family, shape: of the gaps between them.
    family: Literal["Gamma", "Weibull"]
    shape: float
    # prompts, outputs: lengths.
    prompts: Lengths
    outputs: Lengths
    key: int = 0  # with seed and sender it decides what is drawn


@dataclass(frozen=True, slots=True)
class Stream:
    """A sender of independent requests."""

    who: TraceRequest  # what its requests have in common
    stretches: tuple[Stretch, ...]  # in order of time

    def send(self, factor: float, block: Block) -> RequestColumns:
        """As `Sender.send`."""
        clock = Clock.of(block, self.who.tenant)
        arrivals, prompts, outputs = [np.zeros(0)], [], []
        for one in self.stretches:
            key = [block.seed, tenant_key(self.who.tenant), one.key]
            arrivals.append(arrivals_s(one, factor, clock, np.random.default_rng([*key, 0])))
            rng = np.random.default_rng([*key, 1])
            prompts.append(one.prompts.draw(len(arrivals[-1]), rng))
            rng = np.random.default_rng([*key, 2])
            outputs.append(one.outputs.draw(len(arrivals[-1]), rng))
        arrival_s = np.concatenate(arrivals)
        empty = np.zeros(0, np.int32)
        return RequestColumns(
            arrival_s, np.concatenate([empty, *prompts]), np.concatenate([empty, *outputs]),
            np.zeros(len(arrival_s), np.int32), (self.who,),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Clock:
    """How much time has passed for a tenant's sending; both arrays (points,), linear between."""

    moments_s: Floats
    passed_s: Floats

    @classmethod
    def of(cls, block: Block, tenant: str) -> "Clock":
        """The clock of a tenant; before the block and after it nothing changes."""
        own = [one for one in block.changes if one.tenant in (None, tenant)]
        ends_s = np.array([-block.length_s, 0.0, block.length_s, 2 * block.length_s])
        if not own:
            return cls(ends_s, ends_s)
        edges_s = [edge for one in own for edge in one.edges_s]
        inside_s = np.linspace(0, block.length_s, GRID if any(one.over_s for one in own) else 2)
        moments_s = np.unique(np.concatenate([ends_s, inside_s, edges_s]))
        middles_s = (moments_s[1:] + moments_s[:-1]) / 2
        factors = np.prod([one.factors(middles_s) for one in own], axis=0)
        factors[middles_s < 0] = factors[middles_s > 0][0]  # sessions begin before the block
        passed_s = np.concatenate([[0.0], np.cumsum(np.diff(moments_s) * factors)])
        return cls(moments_s, passed_s)

    def passed(self, moment_s: float) -> float:
        """Its time at a moment."""
        return float(np.interp(moment_s, self.moments_s, self.passed_s))

    def moments(self, passed_s: Floats) -> Floats:
        """The moments at which it shows these times; same shape."""
        # Where nothing is sent it stands still; no time is in between then, and none is drawn.
        return np.asarray(np.interp(passed_s, self.passed_s, self.moments_s), np.float64)


def arrivals_s(stretch: Stretch, factor: float, clock: Clock, rng: np.random.Generator) -> Floats:
    """So many moments that the gaps from the start to the end are of the family; (requests,).

    Their number is the expected one, rounded up or down by chance. Of a Gamma family this is what
    such gaps are, given how many fill the time.
    """
    from_s, until_s = clock.passed(stretch.from_s), clock.passed(stretch.until_s)
    share = (until_s - from_s) / (stretch.until_s - stretch.from_s)
    count = int(stretch.requests * share * factor + rng.random())
    draw = rng.standard_gamma if stretch.family == "Gamma" else rng.weibull
    gaps = draw(stretch.shape, count + 1)
    total = gaps.sum()
    if not 0 < total < np.inf:  # so bursty that one gap is as good as all of the time
        gaps = np.zeros(count + 1)
        gaps[rng.integers(len(gaps))] = total = 1.0
    return clock.moments(from_s + np.cumsum(gaps[:-1]) * ((until_s - from_s) / total))


def sent(senders: Sequence[Sender], factor: float, block: Block) -> RequestColumns:
    """What all of them send."""
    return RequestColumns.merged([one.send(factor, block) for one in senders])


def tenant_key(tenant: str) -> int:
    """A number for a name, the same in every process."""
    return zlib.crc32(tenant.encode())

"""When does traffic change during a run, and how are arrivals moved to follow it?

Time-warping: an offered rate of r times a factor f(t) is the stream of rate r on a clock
that runs f(t) times as fast, so every request is kept, and bursts keep their shape.
Used by `evals.requests.offer`; numbers in and out are seconds, or shares (0 to 1) of a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evals.suite.shapes import Shift
from serving.contracts import TraceRequest

Floats = NDArray[np.float64]
GRID = 4000  # steps over a run; a ramp's clock is off by less than the square of one


@dataclass(frozen=True, slots=True)
class Clock:
    """A monotone map from the steady stream's seconds to the seconds of the drifting one.

    Both arrays increase and start at 0; between their points the map is linear.
    """

    steady_s: Floats
    drifting_s: Floats

    def at(self, steady_s: float | Sequence[float]) -> list[float]:
        """The drifting seconds of steady ones."""
        moved = np.interp(np.atleast_1d(steady_s), self.steady_s, self.drifting_s)
        return [float(second) for second in moved]

    def move(self, requests: Sequence[TraceRequest]) -> tuple[TraceRequest, ...]:
        """The requests, in order, at their times on the drifting clock."""
        arrivals_s = self.at([request.arrival_s for request in requests])
        return tuple(
            replace(request, arrival_s=arrival_s)
            for request, arrival_s in zip(requests, arrivals_s, strict=True)
        )


def shifted_clock(span_s: float, shift: Shift, to: float) -> Clock:
    """The clock on which the rate is `to` times as high where the level is 1.

    Between the levels the factor is 1 + (to - 1) * level. The shares of `shift` are of the
    drifting run, which is shorter or longer than `span_s` by the mean factor.
    """
    shares = np.union1d(np.linspace(0, 1, GRID + 1), shift.flips)
    middles = (shares[1:] + shares[:-1]) / 2
    passed = np.diff(shares) * (1 + (to - 1) * shift.level(middles))
    mean_until = np.concatenate([[0.0], np.cumsum(passed)])
    return Clock(mean_until * span_s / mean_until[-1], shares * span_s / mean_until[-1])


def burst_starts_s(span_s: float, factor: float, for_s: float, every_s: float, first_s: float) -> (
    list[float]
):
    """Seconds at which bursts begin while a steady stream of `span_s` lasts."""
    starts_s: list[float] = []
    at_s, left_s = first_s, span_s - first_s
    while left_s > 0:
        starts_s.append(at_s)
        at_s += every_s
        left_s -= factor * for_s + every_s - for_s
    return starts_s


def bursty_clock(
    span_s: float, factor: float, for_s: float, every_s: float, first_s: float
) -> Clock:
    """The clock on which the rate is `factor` times as high for `for_s` every `every_s`."""
    starts_s = burst_starts_s(span_s, factor, for_s, every_s, first_s)
    edges_s = [edge for start_s in starts_s for edge in (start_s, start_s + for_s)]
    drifting_s = np.array([0.0, *edges_s, (edges_s or [0.0])[-1] + span_s])
    rates = np.array([1.0, *([factor, 1.0] * len(starts_s))])
    steady_s = np.concatenate([[0.0], np.cumsum(np.diff(drifting_s) * rates)])
    return Clock(steady_s, drifting_s)

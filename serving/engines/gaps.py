"""How long are the gaps between tokens of a virtual run? Late ones of each request, and p99 of all.

In a step most running requests got their last token in the step before: their gap is one and the
same. So it is put into the histogram once a step, and compared with a request's own target only if
it is longer than the least of all targets.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contracts import SLO
from serving.core.jit import compiled_in_place
from serving.engines.offered import Workload
from serving.policies.base import seconds

# The bins' edges: from 0.1 ms to 1,000 s, each 1% above the one before.
LEAST_S, BINS_PER_E, BINS = 1e-4, 100, 1613

WATCHED = np.dtype(
    [
        ("least_itl_s", "f8"),  # of all targets; infinite: there is none
        ("first", "i8"), ("beyond", "i8"),  # gaps of these rows are in the histogram
    ]
)  # fmt: skip
NEVER = math.inf, math.inf


class Gaps(NamedTuple):
    """What is known of the gaps between tokens.

    Attributes:
        watched: WATCHED (1,).
        itl_s: targets, infinite without one, shape (requests,).
        late: how many gaps were longer, shape (requests,).
        histogram: of the gaps of counted requests, shape (BINS,).
    """

    watched: NDArray[Any]
    itl_s: NDArray[np.float64]
    late: NDArray[np.int32]
    histogram: NDArray[np.int64]


def new_gaps(requests: int) -> Gaps:
    """No request has a target, and none is counted."""
    watched = np.array([(math.inf, 0, 0)], WATCHED)
    itl_s, late = np.full(requests, math.inf), np.zeros(requests, np.int32)
    return Gaps(watched, itl_s, late, np.zeros(BINS, np.int64))


def promise(gaps: Gaps, slos: Sequence[SLO], sender: NDArray[np.int32], first: int = 0) -> None:
    """Note the targets of requests from row `first` on.

    Args:
        gaps: of the run.
        slos: of each sender.
        sender: of each request, shape (requests,).
        first: those before keep what they have.
    """
    targets_s = np.array([seconds(slo.itl_ms) for slo in slos])
    gaps.itl_s[first:] = targets_s[sender[first:]]
    gaps.watched["least_itl_s"] = gaps.itl_s.min(initial=math.inf)


def count_gaps(
    gaps: Gaps, workload: Workload, arrive_s: tuple[float, float]
) -> NDArray[np.int64]:
    """Count the gaps of requests that arrive in this time, ends included; returns the histogram."""
    arrival_s = workload.arrival_s[workload.begun :]
    gaps.watched["first"] = workload.begun + np.searchsorted(arrival_s, arrive_s[0])
    gaps.watched["beyond"] = workload.begun + np.searchsorted(arrival_s, arrive_s[1], "right")
    return gaps.histogram


@compiled_in_place
def bin_of(gap_s: float) -> int:
    """The number of a gap's bin."""
    if gap_s <= LEAST_S:
        return 0
    return int(min(BINS_PER_E * math.log(gap_s / LEAST_S), BINS - 1.0))


@compiled_in_place
def add_gaps(histogram: NDArray[np.int64], gaps_s: NDArray[np.float64]) -> None:
    """Count gaps in a histogram."""
    for i in range(len(gaps_s)):
        histogram[bin_of(gaps_s[i])] += 1


@compiled_in_place
def note_gap(gaps: Gaps, row: int, gap_s: float) -> None:
    """A request got a token so long after the one before."""
    gaps.late[row] += gap_s > gaps.itl_s[row]
    if gaps.watched[0].first <= row < gaps.watched[0].beyond:
        gaps.histogram[bin_of(gap_s)] += 1


def gap_percentile(histogram: NDArray[np.int64], percent: float) -> float | None:
    """In seconds, to 0.5%: the middle of its bin. None without gaps."""
    total = int(histogram.sum())
    if not total:
        return None
    place = int(np.searchsorted(histogram.cumsum(), percent / 100 * total))
    return LEAST_S * math.exp((place + 0.5) / BINS_PER_E)

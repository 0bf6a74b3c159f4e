"""What does a compiled engine note beside its state and the core? Events, and tenants' lanes."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.core.jit import compiled_in_place

# What the books are told of a request, in the order in which it happened: row * KINDS + one.
ARRIVED, ADMITTED, LEFT_ENGINE, REFUSED = range(4)
KINDS = 4


class Notes(NamedTuple):
    """What a compiled engine notes beside its state and the core.

    Attributes:
        lengths, histograms: the length model of `core.lengths`.
        groups, gaps_s: room for a batch's inter-token gaps.
        events: what happened, at most three for a request.
        head: number of events so far, shape (1,).
        cached: tokens of a prompt that were cached when it arrived, shape (requests,).
        was, stays: room for the running list before a step, and after it.
        whose: number of each request's tenant in this run, shape (requests,).
        lanes: row of the lane that is each tenant's own, or NONE; shape (tenants,).
    """

    lengths: NDArray[Any]
    histograms: NDArray[Any]
    groups: NDArray[np.int64]
    gaps_s: NDArray[np.float64]
    events: NDArray[np.int64]
    head: NDArray[np.int64]
    cached: NDArray[np.int64]
    was: NDArray[np.int64]
    stays: NDArray[np.int64]
    whose: NDArray[np.int64]
    lanes: NDArray[np.int64]


def new_notes(lengths: tuple[NDArray[Any], NDArray[Any]], requests: int, most: int) -> Notes:
    """Room for so many requests, which have lanes, and a batch of at most `most`."""
    return Notes(
        *lengths, np.zeros(most, np.int64), np.zeros(most), np.zeros(3 * requests + 1, int),
        np.zeros(1, np.int64), np.zeros(requests, np.int64), *np.zeros((2, most), np.int64),
        *np.zeros((2, 0), np.int64),
    )  # fmt: skip


@compiled_in_place
def note(notes: Notes, row: int, kind: int) -> None:
    """Something happened to this request."""
    notes.events[notes.head[0]] = KINDS * row + kind
    notes.head[0] += 1

"""Which stretch of time is asked for more than it has? The constraints of the bound.

Called by `upper_bound` with a tentative choice of requests; what is found here is added
to its linear programme. Stretches begin and end on a grid.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evals.sim.bound.work import Floats, LeastWork
from serving.engines.profile import EngineProfile

Resource = Literal["compute", "slots", "kv", "pace"]
_ENOUGH = 1e-6  # of the stretch: demand beyond this is too much
_SPREAD = 64  # at most one new window for each pair of 64ths of the grid: many alike help little


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time, and seconds of it that each request takes if it is met."""

    resource: Resource  # what its steps were counted by
    start_s: float  # where it begins
    end_s: float  # where it ends
    need_s: Floats  # one entry per request


@dataclass(frozen=True, slots=True)
class _Charge:
    """Seconds that a request's prompt and its decodes take of whatever stretch holds them."""

    prefill_s: Floats
    decode_s: Floats


class Windows:
    """Finds stretches with too much in them.

    With fewer grid points (`most_points`) than the requests have releases and deadlines, requests
    count in a window only if they lie inside it, so coarse grids miss constraints and never invent
    one.
    """

    def __init__(self, work: LeastWork, profile: EngineProfile, most_points: int) -> None:
        self.work, self.base_s = work, profile.cost.base_s
        moments = (work.release_s, work.first_s, work.first_due_s, work.due_s)
        points = np.unique(np.concatenate(moments))
        if len(points) > most_points:
            points = points[np.linspace(0, len(points) - 1, most_points).round().astype(int)]
        self.grid_s = points
        self._release, self._first = self._before(work.release_s), self._before(work.first_s)
        self._first_due, self._due = self._after(work.first_due_s), self._after(work.due_s)
        self._charges = _charges(work, profile)
        self._steps = work.prefill_steps + work.decode_steps
        length_s = points[np.newaxis, :] - points[:, np.newaxis]
        self._most_s = length_s * (1 + _ENOUGH)
        # What is too much counts by the root of the length; what has none is no window.
        self._weights = np.zeros_like(length_s)
        np.power(length_s, -0.5, out=self._weights, where=length_s > 1e-9)

    def overfull(self, share: Floats, most: int) -> list[Window]:
        """Windows that cannot hold the chosen shares (0..1): the worst of each resource."""
        found = []
        weight = share * self._steps
        chains = self._chains(weight)
        for resource, charge in self._charges.items():
            demand_s = self._inside(share * charge.prefill_s, share * charge.decode_s)
            if resource == "pace":
                demand_s += self.base_s * chains.T
            score = (demand_s - self._most_s) * self._weights
            for start, end in _worst(score, most):
                need_s = self._need_s(charge, start, end)
                if resource == "pace":
                    members = self._chain(chains, weight, start, end)
                    need_s[members] += self.base_s * self._steps[members]
                found.append(
                    Window(resource, float(self.grid_s[start]), float(self.grid_s[end]), need_s)
                )
        return found

    def _before(self, moments_s: Floats) -> NDArray[np.int64]:
        return np.searchsorted(self.grid_s, moments_s, side="right") - 1

    def _after(self, moments_s: Floats) -> NDArray[np.int64]:
        return np.searchsorted(self.grid_s, moments_s, side="left")

    def _inside(self, prefill: Floats, decode: Floats) -> Floats:
        """Sums over what lies inside [start, end], for all pairs of grid points."""
        size = len(self.grid_s)
        flat = np.bincount(
            np.concatenate((self._release, self._first)) * size
            + np.concatenate((self._first_due, self._due)),
            np.concatenate((prefill, decode)),
            minlength=size * size,
        )
        cells = flat.astype(np.float64, copy=False).reshape(size, size)
        np.cumsum(cells[::-1], axis=0, out=cells[::-1])
        np.cumsum(cells, axis=1, out=cells)
        return cells

    def _need_s(self, charge: _Charge, start: int, end: int) -> Floats:
        prefill = (self._release >= start) & (self._first_due <= end)
        decode = (self._first >= start) & (self._due <= end)
        return charge.prefill_s * prefill + charge.decode_s * decode

    def _chains(self, weight: Floats) -> Floats:
        """[end, start]: the heaviest set of requests inside that follow one another."""
        size = len(self.grid_s)
        best = np.zeros((size, size))
        order = np.argsort(self._due, kind="stable")
        done = 0
        for i in order:
            end, release = int(self._due[i]), int(self._release[i])
            while done < end:
                done += 1
                best[done] = best[done - 1]
            row = best[end, : release + 1]
            np.maximum(row, best[release, : release + 1] + weight[i], out=row)
        while done < size - 1:
            done += 1
            best[done] = best[done - 1]
        return best

    def _chain(self, best: Floats, weight: Floats, start: int, end: int) -> list[int]:
        """The requests of the chain that `_chains` found for this window."""
        members: list[int] = []
        inside = np.flatnonzero((self._release >= start) & (self._due <= end))
        for i in inside[np.argsort(-self._due[inside], kind="stable")]:
            release = self._release[i]
            if self._due[i] <= end and best[release, start] + weight[i] == best[end, start]:
                members.append(int(i))
                end = release
        return members


def _charges(work: LeastWork, profile: EngineProfile) -> dict[Resource, _Charge]:
    base_s = profile.cost.base_s

    def charge(prefill: Floats, decode: Floats, most: float) -> _Charge:
        each_s = base_s / most
        return _Charge(work.prefill_s + each_s * prefill, work.decode_s + each_s * decode)

    kv_tokens = profile.kv_blocks * profile.block_size
    return {
        # The prompt's tokens are what it holds when its last chunk is computed.
        "compute": charge(work.prefill_kv_tokens, work.decode_steps, profile.token_budget),
        "slots": charge(work.prefill_steps, work.decode_steps, profile.max_active_requests),
        "kv": charge(work.prefill_kv_tokens, work.decode_kv_tokens, kv_tokens),
        "pace": _Charge(work.prefill_s, work.decode_s),
    }


def _worst(score: Floats, most: int) -> list[tuple[int, int]]:
    """Grid pairs with the highest positive scores, the worst first, spread over the grid."""
    by_start, by_end = score.argmax(axis=1), score.argmax(axis=0)
    size = len(score)
    starts = np.concatenate((np.arange(size), by_end))
    ends = np.concatenate((by_start, np.arange(size)))
    values = score[starts, ends]
    order = [int(i) for i in np.argsort(-values, kind="stable") if values[i] > 0]
    taken: dict[tuple[int, int], tuple[int, int]] = {}
    for i in order:
        pair = (int(starts[i]), int(ends[i]))
        taken.setdefault((pair[0] * _SPREAD // size, pair[1] * _SPREAD // size), pair)
    return list(taken.values())[:most]

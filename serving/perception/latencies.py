"""How long do whose requests wait, and for what? Histograms per tenant and SLO class.

Fed by the accounting (requests) and the batch (tokens) inside the engine core; the API server
shows them on /metrics. Their size is bounded by the tenants that the accounting counts apart.
"""

from bisect import bisect_left
from collections.abc import Iterator
from typing import Literal

import numpy as np

from serving.contracts import SLO, HistogramCounts

Measure = Literal["ttft_seconds", "inter_token_seconds", "queue_seconds", "slo_used_ratio"]

# Upper bounds of the buckets; one more bucket holds what lies above the last.
BOUNDS: dict[Measure, np.ndarray] = {
    "ttft_seconds": np.array([0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300]),
    "inter_token_seconds": np.array(
        [0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5]
    ),
    "queue_seconds": np.array([0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 300]),
    "slo_used_ratio": np.array([0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5, 2, 5, 10]),
}
_EDGES = {name: bounds.tolist() for name, bounds in BOUNDS.items()}


def slo_used(slo: SLO, ttft_s: float | None, tpot_s: float | None, e2e_s: float) -> float | None:
    """The largest share of a target that a request used up: at most 1 means all were met.

    That for gaps between tokens is left out. None without a target that can be measured. Seconds
    in, a ratio out.
    """
    measured = ((slo.ttft_ms, ttft_s), (slo.tpot_ms, tpot_s), (slo.e2e_ms, e2e_s))
    used = [1000 * seconds / ms for ms, seconds in measured if ms and seconds is not None]
    return max(used, default=None)


class Latencies:
    """Counts since start, per measure, tenant and SLO class.

    A group is one tenant and SLO class by number, so that a whole batch is counted at once.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], int] = {}
        self._free: list[int] = []
        self._counts = {name: np.zeros((8, len(edges) + 1), int) for name, edges in BOUNDS.items()}
        self._sums = {name: np.zeros(8) for name in BOUNDS}

    def group(self, tenant: str, slo_class: str) -> int:
        """The number of a tenant and SLO class."""
        number = self._groups.get((tenant, slo_class))
        if number is not None:
            return number
        number = self._free.pop() if self._free else len(self._groups)
        self._groups[tenant, slo_class] = number
        for name, counts in self._counts.items():
            if number == len(counts):
                self._counts[name] = np.concatenate([counts, np.zeros_like(counts)])
                self._sums[name] = np.concatenate([self._sums[name], np.zeros(len(counts))])
        return number

    def move(self, group: tuple[str, str], into: tuple[str, str]) -> None:
        """Count what was counted for one tenant and SLO class under another; none may be inside."""
        number = self._groups.get(group)
        if number is None:
            return
        to = self.group(*into)
        for name in BOUNDS:
            for counts in (self._counts[name], self._sums[name]):
                counts[to] += counts[number]
                counts[number] = 0
        del self._groups[group]
        self._free.append(number)

    def observe(self, name: Measure, group: int, value: float | None) -> None:
        """Count one value; None was not measured."""
        if value is not None:
            self._counts[name][group, bisect_left(_EDGES[name], value)] += 1
            self._sums[name][group] += value

    def arrays(self, name: Measure) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """To count a whole batch in: counts (groups, buckets), sums (groups,), and the bounds."""
        return self._counts[name], self._sums[name], BOUNDS[name]

    def histograms(self) -> Iterator[HistogramCounts]:
        """What was counted, in the order of measures, then of groups; empty ones are left out."""
        for name, counts in self._counts.items():
            for (tenant, slo_class), group in self._groups.items():
                row = counts[group]
                if row.any():
                    total = float(self._sums[name][group])
                    yield HistogramCounts(name, tenant, slo_class, tuple(row.tolist()), total)

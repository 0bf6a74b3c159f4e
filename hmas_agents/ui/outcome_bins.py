"""How many requests met their SLOs, per tenant and second of arrival? Read by the timeline.

Kept per second, so that any bin width can be drawn without reading the outcomes again.
"""

import math
import sqlite3
from collections import Counter, deque
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

# The rest is drawn as one series: more lines than these cannot be told apart.
MAX_TENANTS = 7
RECENT = 500
# Half a million outcomes are counted by SQLite, not one by one here. The plus keeps it off the
# index of runs: by id, only the new rows are read.
COUNTED = """
SELECT json_extract(outcome, '$.tenant') AS tenant,
  CAST(json_extract(outcome, '$.arrival_s') AS INTEGER) AS second,
  json_extract(outcome, '$.met') AS met, json_extract(outcome, '$.miss') AS miss,
  count(*) AS number, max(json_extract(outcome, '$.finished_s')) AS finished_s, max(id) AS last_id
FROM outcomes WHERE +run_id = ? AND id > ?
  AND (met OR miss <> '' OR json_extract(outcome, '$.finish') <> 'aborted')
GROUP BY tenant, second, met, miss
"""
NEWEST = """
SELECT json_extract(outcome, '$.e2e_s') AS e2e_s FROM outcomes
WHERE +run_id = ? AND id > ? ORDER BY id DESC LIMIT ?
"""
WIDTHS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
# Enough points for a line on a screen, and enough requests in a point of each tenant's line.
TARGET_BINS = 90
TARGET_REQUESTS = 8
MIN_BINS = 12
MIN_WIDTH_S = 2
MAX_BINS = 2000


Bins = npt.NDArray[np.int_]


@dataclass(slots=True)
class Counts:
    """Offered and met requests per second of arrival (Unix or virtual seconds, floored)."""

    offered: Counter[int] = field(default_factory=Counter)
    met: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the timeline. `kind` keeps a tenant called "overall" apart from the sum."""

    kind: str
    name: str
    offered: list[int]
    met: list[int]


class OutcomeBins:
    """Outcomes of one run, read as they come.

    Args:
        own_tenants: of the controller's own requests, which count for nothing but `own`.
    """

    def __init__(self, own_tenants: Collection[str] = ()) -> None:
        self._own_tenants = own_tenants
        self.own = Counts()
        self.tenants: dict[str, Counts] = {}
        self.misses: Counter[str] = Counter()
        self.count = 0
        self.met = 0
        # From the second of the first arrival to the end of that of the last.
        self.first_s, self.last_s = math.inf, -math.inf
        self._last_id = 0
        self._last_finish_s = -math.inf
        self._recent_e2e_s: deque[float] = deque(maxlen=RECENT)

    def read(self, connection: sqlite3.Connection, run_id: int) -> None:
        """Take in the outcomes stored since the last call. Raises sqlite3.Error."""
        newest = connection.execute(NEWEST, (run_id, self._last_id, RECENT)).fetchall()
        self._recent_e2e_s.extend(row["e2e_s"] for row in reversed(newest))
        for row in connection.execute(COUNTED, (run_id, self._last_id)).fetchall():
            second, number, tenant = row["second"], row["number"], row["tenant"]
            self._last_id = max(self._last_id, row["last_id"])
            if tenant in self._own_tenants:
                self.own.offered[second] += number
                self.own.met[second] += number * row["met"]
                continue
            if tenant not in self.tenants:
                self.tenants[tenant] = Counts()
            self.tenants[tenant].offered[second] += number
            self.count += number
            if row["met"]:
                self.tenants[tenant].met[second] += number
                self.met += number
            elif row["miss"]:
                self.misses[row["miss"]] += number
            self.first_s = min(self.first_s, second)
            self.last_s = max(self.last_s, second + 1.0)
            self._last_finish_s = max(self._last_finish_s, row["finished_s"])

    @property
    def provisional_from_s(self) -> float | None:
        """Later arrivals may still be inside the engine: attainment there can yet fall.

        The last finish less the 90th percentile of the newest end-to-end times.
        """
        if not self._recent_e2e_s:
            return None
        ordered = sorted(self._recent_e2e_s)
        return self._last_finish_s - ordered[int(0.9 * (len(ordered) - 1))]

    def series(self, start_s: float, end_s: float, width_s: int) -> list[Series]:
        """Overall, then tenants by volume, then the others as one.

        Args:
            start_s: left edge of the first bin.
            end_s: right edge of what is drawn; the last bin may reach beyond it.
            width_s: of a bin, in seconds.
        """
        bins = max(1, math.ceil((end_s - start_s) / width_s))

        def binned(counts: Counter[int]) -> Bins:
            seconds = np.fromiter(counts.keys(), float, len(counts))
            places = ((seconds - start_s) // width_s).clip(0, bins - 1).astype(int)
            numbers = np.fromiter(counts.values(), float, len(counts))
            return np.bincount(places, numbers, bins).astype(np.int_)

        ranked = sorted(self.tenants.items(), key=lambda item: (-item[1].offered.total(), item[0]))
        lines = [(name, binned(c.offered), binned(c.met)) for name, c in ranked]
        found = [_sum("overall", "overall", lines, bins)]
        found += [_sum("tenant", line[0], [line], bins) for line in lines[:MAX_TENANTS]]
        if rest := lines[MAX_TENANTS:]:
            found.append(_sum("others", f"{len(rest)} others", rest, bins))
        return found


def _sum(kind: str, name: str, lines: list[tuple[str, Bins, Bins]], bins: int) -> Series:
    offered, met = np.zeros(bins, np.int_), np.zeros(bins, np.int_)
    for _, line_offered, line_met in lines:
        offered += line_offered
        met += line_met
    return Series(kind, name, offered.tolist(), met.tolist())


def bin_width_s(span_s: float, requests: int, lines: int, wanted_s: int | None = None) -> int:
    """A round bin width in seconds: the wanted one where it gives few enough bins.

    Args:
        span_s: what is drawn.
        requests: how many came in that time.
        lines: how many tenants they are drawn for.
        wanted_s: None leaves the choice to the other three.
    """
    if wanted_s is not None and span_s / wanted_s <= MAX_BINS:
        return wanted_s
    if wanted_s is not None:
        least_s = span_s / MAX_BINS
    else:
        dense_s = TARGET_REQUESTS * lines * span_s / max(requests, 1)
        least_s = max(span_s / TARGET_BINS, min(dense_s, span_s / MIN_BINS), MIN_WIDTH_S)
    return next((w for w in WIDTHS_S if w >= least_s), WIDTHS_S[-1])

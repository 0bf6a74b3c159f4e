"""If not all waiting requests can meet their deadlines, which are moved back? The rule `triage`.

Called by the queue before each step while `Limits.triage` is on. Past saturation, an order by
deadline spends itself on requests that are about to miss. A fixed preference for short prompts
prevents this, but is right for one load only. Triage asks each time what fits.
"""

import math
from collections.abc import Iterable, Iterator
from heapq import heappush, heappushpop
from itertools import islice

from serving.standing import PARKED, Entry

# Entries looked at per step. Until a pass ends, requests that wait in vain take places in steps: a
# pass over hundreds of entries is done in one step; over thousands its cost is spread.
SLICE, LONG, LONG_SLICE = 128, 2_000, 48
# Not every step is full of prompts, as `prefill_s_per_token` has it. Chosen among 1, 1.2, 1.5 and 2
# on seeds that no published figure uses.
_ROUGHLY = 1.2


class Triage:
    """Parks the fewest requests such that the others meet their deadlines, one after the other.

    Moore 1968 (an n job, one machine sequencing algorithm for minimizing the number of late
    jobs), by Hodgson: go through them by deadline, and when one would be late, give up the
    costliest so far. Repeated all the time, because requests come and costs are estimates: a
    parked request comes back when there is room. Never parked are best-effort requests, and
    requests that have waited beyond the ceiling or begun to answer; hopeless ones are left out.

    Args:
        entries: the requests that wait already.

    Attributes:
        parked: the requests that are moved back now.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.parked: dict[Entry, None] = {}  # a set that keeps its order
        self._by_deadline: list[tuple[float, int, Entry]] = []
        self._new: list[tuple[float, int, Entry]] = []
        self._filter_at = LONG
        self._left: Iterator[tuple[float, int, Entry]] | None = None  # to be looked at in this pass
        self._kept: list[tuple[float, int, Entry]] = []  # the costliest first
        self._given_up: dict[Entry, None] = {}
        self._done_s = 0.0
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """One more that waits, from the next pass on; not one that vLLM took and put back."""
        if entry.view.deadline_s < math.inf:
            self._new.append((entry.view.deadline_s, entry.order, entry))
            if len(self._new) > self._filter_at:  # while no pass begins, many may come and go
                self._new = [item for item in self._new if item[2].item]
                self._filter_at = max(LONG, 2 * len(self._new))

    def advance(self, now_s: float, prefill_s_per_token: float) -> list[Entry]:
        """Go on with the pass; at its end, the entries whose parking changes.

        Amortised O(log n) per entry, for at most `SLICE` entries, or `LONG_SLICE` in a queue of
        more than `LONG`; at the start of a pass O(n) with a small factor.
        """
        if self._left is None:
            self._left = self._begin(now_s)
        rate, kept, done_s = _ROUGHLY * prefill_s_per_token, self._kept, self._done_s
        count = SLICE if len(self._by_deadline) <= LONG else LONG_SLICE
        slice_ = list(islice(self._left, count))
        for deadline_s, order, entry in slice_:
            if entry.facts & ~PARKED or not entry.item:
                continue
            work_s = entry.view.prompt_tokens * rate
            done_s += work_s
            if done_s <= deadline_s:
                heappush(kept, (-work_s, order, entry))
            else:
                minus_work_s, _, dearest = heappushpop(kept, (-work_s, order, entry))
                done_s += minus_work_s
                self._given_up[dearest] = None
        self._done_s = done_s
        return self._end() if len(slice_) < count else []

    def _begin(self, now_s: float) -> Iterator[tuple[float, int, Entry]]:
        waiting = [item for item in (*self._by_deadline, *self._new) if item[2].item]
        waiting.sort()  # nearly sorted: one comparison each
        self._by_deadline, self._new, self._done_s = waiting, [], now_s
        return iter(waiting)

    def _end(self) -> list[Entry]:
        before, self.parked = self.parked, self._given_up
        self._kept, self._given_up, self._left = [], {}, None
        changed = [entry for entry in self.parked if entry not in before]
        changed += [entry for entry in before if entry not in self.parked]
        return [entry for entry in changed if entry.item]

"""Which of hundreds of candidates is worth another look? Successive halving on common futures.

After Jamieson and Talwalkar (AISTATS 2016): all candidates are tried on one future, the better ones
on more, and so on; each rung costs about as much as the one before. Half of the futures are kept
for the one that leads by then: its lead on those is no luck of having been chosen.

A search has a budget of work, which is counted and not timed: the same question has the same
answer on any machine. Where forecasts are dear, fewer candidates enter (the first ones), rungs are
smaller, then the look ahead is shorter, and at last there are fewer futures.
"""

import math
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from hmas_agents.twin.question import SHORTEST_S, Answer, Candidate, Question
from serving.engines.branches import Forecast

RUNG = 64  # trials, beside those of the candidates that are kept
# Work of a decision, in seconds as `serving.engines.branches` counts it: what is planned, and what
# is exceeded by no more than one trial, should candidates cost more than what is in force.
PLANNED_S, MOST_S = 0.45, 0.6
LEAST_ENTERING = 12  # beside those that are kept; the look ahead is cut for them
ENTERING = 2 / 3  # of the work that the finalists leave; the rest is for the rungs
LEAST_FUTURES = 4
_SHORTER = 0.9
_NOTHING_TO_GAIN = 2  # perfect futures in a row of what is in force


class Trials(Protocol):
    """Tries candidates, and counts its work."""

    @property
    def work_s(self) -> float:
        """Done so far."""
        ...

    def forecast(self, candidate: Candidate, seed: int) -> Forecast:
        """Of a candidate in a future. Raises ValueError."""
        ...

    def look_ahead(self, horizon_s: float) -> None:
        """From here on, look so far."""
        ...


def search(question: Question, trials: Trials) -> Answer:
    """Try the candidates; one that fails is left out from there on."""
    return _Search(question, trials).run()


class _OutOfTimeError(Exception):
    """The wall-clock limit has passed."""


class _Search:
    """One search. What trials cost is learnt as it goes on."""

    def __init__(self, question: Question, trials: Trials) -> None:
        self._question, self._trials = question, trials
        limit_s = question.limit_s
        self._deadline_s = math.inf if limit_s is None else time.monotonic() + limit_s
        self._kept = min(question.kept, len(question.candidates))
        self._seen: list[list[Forecast]] = [[] for _ in question.candidates]
        self._costs_s: tuple[list[float], list[float]] = [], []  # of the kept ones, of the others
        self._faults: list[str] = []
        self._futures, self._horizon_s = question.futures, question.horizon_s

    def run(self) -> Answer:
        """What came of it, be it cut short."""
        try:
            alive, done = self._first_future(), 1
            while done < self._futures and 0 in alive:  # else there is nothing to compare with
                alive, upto = self._go_on(alive, done), min(2 * done, self._futures)
                for seed in range(done, upto):
                    alive = self._try(self._within(alive, seed), seed)
                done = upto
        except _OutOfTimeError:
            self._faults.append("twin_timeout: out of its time budget")
        return Answer(
            tuple(map(tuple, self._seen)), horizon_s=self._horizon_s,
            work_s=self._trials.work_s, faults=tuple(self._faults),
        )  # fmt: skip

    def _first_future(self) -> list[int]:
        """Try what is kept, and of the others what most of the work to spare is for.

        None of the others where what is in force is perfect: then there is nothing to gain.
        """
        alive = self._try([0], 0)
        while alive and (shorter_s := self._affordable_s()) < self._horizon_s:
            self._horizon_s = shorter_s
            self._trials.look_ahead(shorter_s)
            self._seen[0].clear()
            self._costs_s[0].clear()
            alive = self._try([0], 0)
        alive += self._try(range(1, self._kept), 0)
        if self._is_perfect(1) and self._futures > 1:
            self._try([0], 1)
            if self._is_perfect(_NOTHING_TO_GAIN):
                return alive
        entering_s = LEAST_ENTERING * self._cost_s(1)
        futures = int(_times(self._spare_s(1) - entering_s, self._final_s)) + self._futures
        if futures < self._futures:  # half of them choose, so it is a power of two
            self._futures = max(LEAST_FUTURES, 1 << (max(1, futures).bit_length() - 1))
        most_s = MOST_S - self._futures * self._kept * self._cost_s(0)
        until_s = self._trials.work_s + max(entering_s, ENTERING * self._spare_s(1))
        until_s = min(until_s, most_s)
        for i in range(self._kept, len(self._seen)):
            if self._trials.work_s >= until_s:
                break
            alive += self._try([i], 0)
        return alive

    def _is_perfect(self, futures: int) -> bool:
        """Whether what is in force met all there was, on so many futures or more."""
        seen = self._seen[0]
        return len(seen) >= futures and min(one.worth for one in seen) >= 1.0

    def _affordable_s(self) -> float:
        """How far to look, so that some can enter and the finalists meet every future."""
        trials = LEAST_ENTERING + (self._kept + 1) * self._futures
        share = _times(PLANNED_S - self._trials.work_s, trials * self._cost_s(0))
        if share >= 1.0:
            return self._horizon_s
        # What is inside at the start costs most: a look that is half as long costs more than half.
        return max(SHORTEST_S, min(share, _SHORTER) * self._horizon_s)

    def _go_on(self, alive: Sequence[int], done: int) -> list[int]:
        """Those that are tried on the next futures, up to twice as many: as a rung pays for."""
        seen, kept = self._seen, [i for i in alive if i < self._kept]
        if self._is_perfect(_NOTHING_TO_GAIN):
            return kept
        worths = {i: sum(one.worth for one in seen[i]) for i in alive}
        leads = sorted((i for i in alive if i not in kept), key=lambda i: -worths[i])
        leads = [i for i in leads if worths[i] > worths[0] or done == 1]
        if 2 * done >= self._futures:
            return kept + leads[:1]
        rungs = (self._futures // done).bit_length() - 2  # before the last one
        paid = int(_times(self._spare_s(done), rungs * done * self._cost_s(1)))
        return kept + leads[: max(1, min(RUNG // done, paid))]

    def _within(self, alive: Sequence[int], seed: int) -> list[int]:
        """Those of them that the most work allows on this future, and the kept ones after it."""
        kept = [i for i in alive if i < self._kept]
        kept_s = self._kept * self._cost_s(0)
        left_s = MOST_S - self._trials.work_s
        if left_s < kept_s:
            return []
        paid = int(_times(left_s - (self._futures - seed) * kept_s, self._cost_s(1)))
        return kept + list(alive[len(kept) :][: max(0, paid)])

    def _spare_s(self, done: int) -> float:
        """Of the planned work, what the finalists leave on the futures to come."""
        return PLANNED_S - self._trials.work_s - (self._futures - done) * self._final_s

    @property
    def _final_s(self) -> float:
        """What the kept ones and one that leads cost on a future."""
        return self._kept * self._cost_s(0) + self._cost_s(1)

    def _cost_s(self, kind: int) -> float:
        """Of a trial so far, on average: 0 of the kept ones, 1 of the others."""
        costs_s = self._costs_s[kind] or self._costs_s[0]
        return sum(costs_s) / max(len(costs_s), 1)

    def _try(self, candidates: Iterable[int], seed: int) -> list[int]:
        """Those of them that could be tried on this future."""
        tried = []
        for i in candidates:
            if time.monotonic() > self._deadline_s:
                raise _OutOfTimeError
            if len(self._seen[i]) > seed:  # what is in force may be a future ahead
                tried.append(i)
                continue
            begun_s = self._trials.work_s
            try:
                self._seen[i].append(self._trials.forecast(self._question.candidates[i], seed))
                tried.append(i)
            except ValueError as error:
                self._faults.append(f"twin_failed: {error}")
            self._costs_s[i >= self._kept].append(self._trials.work_s - begun_s)
        return tried


def _times(budget_s: float, cost_s: float) -> float:
    """How many times a budget pays a cost; any number of times what costs nothing."""
    return budget_s / max(cost_s, 1e-9)

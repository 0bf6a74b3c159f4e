"""Which of hundreds of candidates is worth another look? Successive halving on common futures.

After Jamieson and Talwalkar (AISTATS 2016): all candidates are tried on one future, the better ones
on more, and so on; each rung costs about as much as the one before. Half of the futures are kept
for the one that leads by then: its lead on those is no luck of having been chosen.
"""

import time
from collections.abc import Callable, Sequence

from hmas_agents.twin.question import Answer, Question

RUNG = 64  # trials, beside those of the candidates that are kept
_NOTHING_TO_GAIN = 2  # perfect futures in a row of what is in force

Attainment = Callable[[int, int], float]  # of a candidate, by number, in a future; ValueError


def search(question: Question, attainment: Attainment) -> Answer:
    """Try the candidates; one that fails is left out from there on."""
    deadline_s = None if question.limit_s is None else time.monotonic() + question.limit_s
    seen: list[list[float]] = [[] for _ in question.candidates]
    faults: list[str] = []
    alive, done = list(range(len(seen))), 0
    while done < question.futures and 0 in alive:  # else there is nothing to compare with
        upto = min(max(1, 2 * done), question.futures)
        for seed in range(done, upto):
            for i in alive:
                if deadline_s is not None and time.monotonic() > deadline_s:
                    faults.append("twin_timeout: out of its time budget")
                    return Answer(tuple(map(tuple, seen)), faults=tuple(faults))
                try:
                    seen[i].append(attainment(i, seed))
                except ValueError as error:
                    faults.append(f"twin_failed: {error}")
            alive = [i for i in alive if len(seen[i]) > seed]
        done = upto
        alive = _go_on(alive, seen, question, done)
    return Answer(tuple(map(tuple, seen)), faults=tuple(faults))


def _go_on(
    alive: Sequence[int], seen: Sequence[Sequence[float]], question: Question, done: int
) -> list[int]:
    """Those that are tried on the next futures, up to twice as many: as a rung pays for."""
    kept = [i for i in alive if i < question.kept]
    if done >= _NOTHING_TO_GAIN and min(seen[0]) >= 1.0:
        return kept
    in_force = sum(seen[0])
    leads = sorted((i for i in alive if i not in kept), key=lambda i: -sum(seen[i]))
    leads = [i for i in leads if sum(seen[i]) > in_force or done == 1]
    return kept + leads[: 1 if 2 * done >= question.futures else max(1, RUNG // done)]

"""Do the soak's books balance? Each request by its id: what its client saw, what the engine did.

Called by `run` when the engine is at rest. A client that leaves before the engine has
seen its request leaves no trace there, which is no loss.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evals.checks.soak.clients import ENDS, Visit
from evals.checks.soak.steering import Journal
from evals.live.server import engine_totals
from serving.contracts import TenantCounters

MOST_NAMED = 10
_SERVED = ("stop", "length")


@dataclass(frozen=True, slots=True)
class SoakBooks:
    """Counts of clients and engine, and every way in which they do not agree."""

    sent: int  # requests that clients sent; each ended in one way of `ends`
    asked: int  # answers that they asked for: two with `n=2`, else one
    ends: dict[str, int]  # by clients, how many of each of ENDS
    # received, finished, aborted: by the engine's journal.
    received: int
    finished: int
    aborted: int
    unseen: int  # answers whose client left before the engine saw them
    mismatches: tuple[str, ...]  # first ones; empty when the books balance

    def text(self) -> str:
        """The equation, in one line."""
        return (
            f"{self.asked} asked for = {self.finished} finished + {self.aborted} aborted "
            f"+ {self.ends['refused']} refused + {self.unseen} left before the engine saw them"
        )


def check_books(
    visits: Sequence[Visit],
    sent: int,
    journal: Journal,
    index_of: Callable[[str], int | None],
    before: Sequence[TenantCounters],
    after: Sequence[TenantCounters],
) -> SoakBooks:
    """Compare clients, journal and totals of an engine at rest.

    `journal` is since before the first request, `before` and `after` are the engine's totals then
    and now; `index_of` says which of the soak's requests an engine's request id means.
    """
    arrived = Counter(index_of(arrival.request_id) for arrival in journal.arrivals)
    left: dict[int | None, list[str]] = {}
    for outcome in journal.outcomes:
        left.setdefault(index_of(outcome.request_id), []).append(outcome.finish)
    wrong = [
        f"request {visit.index} ({visit.kind}): {problem}"
        for visit in visits
        if (problem := _problem(visit, arrived[visit.index], left.get(visit.index, [])))
    ]
    strangers = arrived[None] + len(left.get(None, []))
    finishes = [finish for finishes in left.values() for finish in finishes]
    finished = sum(finish in _SERVED for finish in finishes)
    books = {
        "received": arrived.total(), "finished": finished, "aborted": len(finishes) - finished
    }  # fmt: skip
    began, now = engine_totals(before), engine_totals(after)
    for name, count in books.items():
        total = now[name].total() - began[name].total()
        if total != count:
            wrong.append(f"totals say {total} {name}, the journal {count}")
    if strangers:
        wrong.append(f"{strangers} events in the journal of requests that nobody sent")
    if journal.lost:
        wrong.append(f"{journal.lost} journal events were overwritten before they were read")
    if len(visits) != sent:
        wrong.append(f"{sent} requests were sent, {len(visits)} have ended")
    unseen = sum(visit.answers - arrived[visit.index] for visit in visits if visit.end == "left")
    more = [f"... and {len(wrong) - MOST_NAMED} more"] if len(wrong) > MOST_NAMED else []
    return SoakBooks(
        sent=sent,
        asked=sum(visit.answers for visit in visits),
        ends={end: sum(visit.end == end for visit in visits) for end in ENDS},
        **books,
        unseen=unseen,
        mismatches=(*wrong[:MOST_NAMED], *more),
    )


def _problem(visit: Visit, arrived: int, finishes: Sequence[str]) -> str:
    if len(finishes) != arrived or arrived > visit.answers:
        return f"the engine received it {arrived} times and ended it {len(finishes)} times"
    if visit.end == "failed":
        return visit.detail
    whole = arrived == visit.answers and all(finish in _SERVED for finish in finishes)
    if visit.end == "finished" and not whole:
        return f"its client saw the end, the engine says {finishes or 'nothing'}"
    if visit.end == "refused" and (arrived or visit.kind != "bad"):
        return f"refused with {visit.detail}" + (", but the engine got it" if arrived else "")
    return ""

"""How are the journals of several data-parallel ranks read as one? Pure functions, for `live`.

Each rank numbers its own events. A joint cursor holds one cursor per rank, so that a page
neither repeats nor loses an event, whoever reads, from where, and how many at once.
"""

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence

from serving.contracts import Arrival, JournalPage, Outcome

_RANK_BITS = 40  # of a joint cursor: 10^12 events per rank
Event = Arrival | Outcome


def merge_pages(pages: Mapping[int, JournalPage], limit: int) -> JournalPage:
    """One page of at most `limit` events from each rank's page, by time, each rank in order.

    What does not fit is left for the next page: fewer than `limit` events mean that
    there are no more. `seq` of an event counts within its rank.
    """
    if len(pages) == 1:
        return next(iter(pages.values()))
    events = {rank: in_order(page) for rank, page in pages.items()}
    streams = [[(event_time_s(e), rank, e) for e in queued] for rank, queued in events.items()]
    merged = list(heapq.merge(*streams, key=lambda item: item[0]))[:limit]
    taken: dict[int, int] = defaultdict(int)
    for _, rank, _event in merged:
        taken[rank] += 1
    cursors = {
        rank: pages[rank].cursor if taken[rank] == len(queued) else queued[taken[rank]].seq
        for rank, queued in events.items()
    }
    return JournalPage(
        cursor=join_cursors(cursors),
        lost=sum(page.lost for page in pages.values()),
        arrivals=tuple(event for *_, event in merged if isinstance(event, Arrival)),
        outcomes=tuple(event for *_, event in merged if isinstance(event, Outcome)),
    )


def join_cursors(cursors: Mapping[int, int]) -> int:
    """One integer for the journal cursors by rank; grows when any of them does.

    A rank has 40 bits of its own, so that nothing needs to be remembered to read on, and
    several readers cannot mix up each other's places. From the third rank on it is beyond
    64 bits, which Python, its JSON and the ledger carry, and msgpack does not.
    """
    return sum(cursor << (_RANK_BITS * rank) for rank, cursor in cursors.items())


def split_cursor(cursor: int, ranks: Sequence[int]) -> list[int]:
    """The cursor of rank 0, 1, ... up to the highest of `ranks`; the inverse of joining."""
    if len(ranks) == 1:
        return [cursor]
    part = (1 << _RANK_BITS) - 1
    return [cursor >> (_RANK_BITS * rank) & part for rank in range(max(ranks) + 1)]


def in_order(page: JournalPage) -> list[Event]:
    """The events of a page of one rank, oldest first."""
    events: list[Event] = [*page.arrivals, *page.outcomes]
    return sorted(events, key=lambda event: event.seq)


def event_time_s(event: Event) -> float:
    """When it came or left."""
    return event.finished_s if isinstance(event, Outcome) else event.arrival_s

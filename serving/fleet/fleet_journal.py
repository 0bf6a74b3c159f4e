"""How are the journals of replicas that come and go read as one?

The fleet reads each replica's journal itself, from where it left off there, into one of its own.
Readers of that give and get one growing integer, as with a single engine: how many there are, and
which replicas have come and gone meanwhile, is nothing to them.
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving.contracts import Arrival, JournalPage, Outcome, Snapshot
from serving.engines.joint_journal import Event, event_time_s, in_order
from serving.engines.protocol import Engine

_PAGE_EVENTS = 5000
_KEPT = 200_000  # events; readers come every few seconds


@dataclass(frozen=True, slots=True)
class Place:
    """How far the journal of a replica has been read: of the process that started then."""

    started_s: float
    cursor: int


@dataclass(frozen=True, slots=True)
class News:
    """What one replica said at a look: its state, and its events since the last one."""

    shot: Snapshot
    place: Place
    events: tuple[Event, ...]
    lost: int


def read_news(name: str, engine: Engine, place: Place | None, began_s: float | None) -> News:
    """Look at a replica, and read its journal on from `place`.

    One that has started anew is read from its beginning, for the old journal is gone. So is one
    that is met for the first time, unless it was there before the fleet began: what happened
    before that is not the fleet's.

    Args:
        name: of the replica; its events get it.
        engine: the replica.
        place: how far it has been read; None is not at all.
        began_s: when the fleet was first looked at; None is now.
    """
    shot = engine.snapshot()
    cursor = 0
    if place is None:
        older = began_s is None or 0 < shot.started_s < began_s
        cursor = shot.journal_head if older else 0
    elif place.started_s == shot.started_s and place.cursor <= shot.journal_head:
        cursor = place.cursor
    events: list[Event] = []
    lost = 0
    while cursor != shot.journal_head:
        page = engine.journal(cursor, _PAGE_EVENTS)
        events += (replace(event, replica=name) for event in in_order(page))
        cursor, lost = page.cursor, lost + page.lost
        if len(page.arrivals) + len(page.outcomes) < _PAGE_EVENTS:
            break
    return News(shot, Place(shot.started_s, cursor), tuple(events), lost)


class FleetJournal:
    """The events of all replicas, numbered as they were read; the newest are kept."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._items: list[Event | int] = []  # a number stands for so many lost events
        self._oldest = 0  # place of the first item
        self._places: dict[str, Place] = {}

    @property
    def head(self) -> int:
        """Where the next event will stand."""
        return self._oldest + len(self._items)

    def place(self, name: str) -> Place | None:
        """How far a replica has been read; also of one that has left and may come back."""
        return self._places.get(name)

    def take(self, news: Mapping[str, News]) -> None:
        """Add what replicas told, by time, each replica's events in their order."""
        for name, one in news.items():
            self._places[name] = one.place
        lost = sum(one.lost for one in news.values())
        self._items += [lost] * bool(lost)
        streams = [one.events for one in news.values() if one.events]
        events: list[Event] = list(heapq.merge(*streams, key=event_time_s))
        self._items += events
        if (extra := len(self._items) - self._kept) > self._kept // 4:  # seldom, as it moves all
            del self._items[:extra]
            self._oldest += extra

    def page(self, cursor: int, limit: int) -> JournalPage:
        """At most `limit` events from `cursor` on; `lost` counts those that nobody can read."""
        start = min(max(cursor, self._oldest), self.head)
        lost = start - cursor if 0 < cursor < start else 0
        events: list[Event] = []
        end = start
        while end < self.head and len(events) < limit:
            item = self._items[end - self._oldest]
            if isinstance(item, int):
                lost += item
            else:
                events.append(item)
            end += 1
        return JournalPage(
            cursor=end,
            lost=lost,
            arrivals=tuple(event for event in events if isinstance(event, Arrival)),
            outcomes=tuple(event for event in events if isinstance(event, Outcome)),
        )

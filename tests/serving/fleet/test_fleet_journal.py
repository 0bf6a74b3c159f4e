"""Does every reader of a fleet's journal get each event once, whatever replicas do meanwhile?"""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engines.protocol import EngineUnavailable
from serving.fleet.fleet_engine import FleetEngine
from serving.fleet.replicas import FixedReplicas
from tests.fakes import FakeEngine
from tests.serving.samples import arrival

NAMES = "abc"
EVENT = st.tuples(
    st.sampled_from(("arrive", "down", "up", "restart", "leave", "join", "look", "read", "late")),
    st.sampled_from(NAMES),
)


def note(engine: FakeEngine, name: str) -> str:
    """A request comes; its name tells it from all others."""
    unique = f"{name}-{id(engine)}-{len(engine.events)}"
    event = replace(arrival(len(engine.events)), request_id=unique)
    engine.events.append(event)
    return unique


class Reader:
    """Reads page by page from where it began."""

    def __init__(self, cursor: int) -> None:
        self.cursor, self.seen = cursor, Counter[str]()

    def read(self, fleet: FleetEngine, limit: int = 3) -> None:
        while True:
            page = fleet.journal(self.cursor, limit)
            self.cursor = page.cursor
            self.seen.update(event.request_id for event in page.arrivals)
            if len(page.arrivals) + len(page.outcomes) < limit:
                return


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENT, max_size=40))
def test_no_reader_gets_an_event_twice_or_not_at_all(story):
    """Only what a process took with it when it ended, unread, is missing."""
    here = {name: FakeEngine() for name in NAMES}
    there = dict(here)

    class Members:
        def replicas(self) -> dict[str, FakeEngine]:
            return dict(there)

    fleet = FleetEngine(Members())
    fleet.snapshot()
    first = Reader(0)
    late: list[tuple[Reader, Counter[str]]] = []
    read, unread = Counter[str](), {name: Counter[str]() for name in NAMES}
    for number, (what, name) in enumerate(story):
        engine = here[name]
        if what == "arrive":
            unread[name][note(engine, name)] += 1
        elif what in {"down", "up"}:
            engine.down = what == "down"
        elif what == "restart":
            here[name] = FakeEngine(started_s=1.0 + number)
            unread[name].clear()
            if name in there:
                there[name] = here[name]
        elif what == "leave":
            there.pop(name, None)
        elif what == "join":
            there[name] = here[name]
        elif what == "look":
            look(fleet, there, read, unread)
        elif what == "read":
            first.read(fleet)
            assert first.seen == read
        else:
            late.append((Reader(fleet.journal(0).cursor), Counter(read)))
    for name in NAMES:
        here[name].down = False
        there[name] = here[name]
    look(fleet, there, read, unread)
    first.read(fleet)
    assert first.seen == read
    for reader, before in late:
        reader.read(fleet)
        assert reader.seen == read - before
    fleet.close()


def look(fleet, there, read: Counter[str], unread: dict[str, Counter[str]]) -> None:
    up = [name for name, engine in there.items() if not engine.down]
    if not up:
        with pytest.raises(EngineUnavailable):
            fleet.snapshot()
        return
    fleet.snapshot()
    for name in up:
        read += unread[name]
        unread[name].clear()


def test_what_came_before_the_fleet_was_first_looked_at_is_not_its():
    old = FakeEngine(events=[arrival(0)])
    fleet = FleetEngine(FixedReplicas({"a": old}))
    head = fleet.snapshot().journal_head
    old.events.append(arrival(1))
    assert fleet.snapshot().journal_head == head + 1
    (event,) = fleet.journal(head).arrivals
    assert (event.seq, event.replica) == (1, "a")
    fleet.close()

"""Does a reader of several ranks' journals see each event once, or learn how many it lost?"""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import Arrival, JournalPage, Outcome
from serving.engines.joint_journal import join_cursors, merge_pages, split_cursor
from serving.perception.accounting import Accounting
from tests.serving.samples import arrival, outcome

RANKS = (0, 1, 3)  # 2 is behind another API server


class Journals:
    """The real journal of each rank, read as LiveEngine reads them."""

    def __init__(self, size: int) -> None:
        self.ranks = {rank: Accounting(size, max_tenants=4) for rank in RANKS}
        self.clock = 0

    def note(self, rank: int) -> None:
        self.clock += 1
        journal = self.ranks[rank]
        event = arrival if self.clock % 2 else outcome
        name, at_s = f"{rank}-{journal.head}", float(self.clock)
        if event is arrival:
            journal.append(replace(arrival(journal.head), request_id=name, arrival_s=at_s))
        else:
            journal.append(replace(outcome(journal.head), request_id=name, finished_s=at_s))

    def head(self) -> int:
        return join_cursors({rank: journal.head for rank, journal in self.ranks.items()})

    def page(self, cursor: int, limit: int) -> JournalPage:
        own = split_cursor(cursor, RANKS)
        pages = {rank: journal.page(own[rank], limit) for rank, journal in self.ranks.items()}
        return merge_pages(pages, limit)


def names(page: JournalPage) -> list[str]:
    events: list[Arrival | Outcome] = [*page.arrivals, *page.outcomes]
    return [event.request_id for event in events]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), st.sampled_from(RANKS), st.integers(1, 30)),
        st.tuples(st.just("read"), st.integers(0, 1), st.integers(1, 25)),
    ),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None, max_examples=300)
def test_two_readers_see_every_event_once_in_pages_of_any_size(steps):
    journals = Journals(size=10_000)
    cursors, seen = [0, 0], [list[str](), list[str]()]
    for step, who, count in steps:
        if step == "note":
            for _ in range(count):
                journals.note(who)
            continue
        page = journals.page(cursors[who], count)
        found = names(page)
        assert len(found) <= count
        if len(found) < count:
            assert page.cursor == journals.head(), "a page that is not full is the last one"
        assert page.cursor >= cursors[who]
        assert (page.cursor > cursors[who]) == bool(found)
        assert page.lost == 0
        cursors[who], seen[who] = page.cursor, seen[who] + found
    everything = {f"{r}-{i}" for r, journal in journals.ranks.items() for i in range(journal.head)}
    for reader in (0, 1):
        rest = names(journals.page(cursors[reader], 10_000))
        assert len(seen[reader] + rest) == len(everything)
        assert set(seen[reader] + rest) == everything


@given(STEPS)
@settings(deadline=None, max_examples=200)
def test_what_was_overwritten_is_told_exactly(steps):
    journals = Journals(size=20)
    cursor = seen = lost = 0
    for step, who, count in [*steps, ("read", 0, 1000)]:
        if step == "note":
            for _ in range(count):
                journals.note(who)
        else:
            page = journals.page(cursor, count)
            cursor, seen, lost = page.cursor, seen + len(names(page)), lost + page.lost
    assert seen + lost == sum(journal.head for journal in journals.ranks.values())


def test_events_come_by_time_and_a_full_page_takes_the_oldest():
    journals = Journals(size=100)
    for rank in (1, 0, 0, 3, 1, 0):
        journals.note(rank)
    page = journals.page(0, 4)
    assert sorted(names(page)) == ["0-0", "0-1", "1-0", "3-0"]
    assert split_cursor(page.cursor, RANKS) == [2, 1, 0, 1]
    assert [event.arrival_s for event in page.arrivals] == [1.0, 3.0]


@given(st.lists(st.integers(0, 2**40 - 1), min_size=2, max_size=5))
def test_cursors_are_joined_and_split_again(cursors):
    ranks = range(len(cursors))
    assert split_cursor(join_cursors(dict(zip(ranks, cursors, strict=True))), ranks) == cursors


def test_one_rank_keeps_its_own_cursor_whatever_its_number():
    assert split_cursor(17, [3]) == [17]
    page = JournalPage(7, 2, (arrival(5),), (outcome(6),))
    assert merge_pages({3: page}, 10) is page


def test_a_later_place_is_a_larger_cursor_and_a_restart_a_smaller_one():
    before = join_cursors({0: 40, 1: 2})
    assert before < join_cursors({0: 40, 1: 3})
    assert before < join_cursors({0: 41, 1: 2})
    assert join_cursors({0: 3, 1: 1}) < before

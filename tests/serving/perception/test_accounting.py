"""Do the books add up, and does every reader see each event once or learn that it was lost?"""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.contracts import SLO, Arrival, Outcome
from serving.perception.accounting import Accounting, RequestTrack, judge
from tests.serving.samples import view

JOURNAL, TENANTS = 100, 3


def track(name: str, tenant: str = "acme", slo: SLO = SLO()) -> RequestTrack:  # noqa: B008
    return RequestTrack(view(name, 10.0, tenant=tenant, slo=slo), 64, (tenant, 0), 100)


@pytest.mark.parametrize(
    ("slo", "queue_s", "ttft_s", "tpot_s", "e2e_s", "miss"),
    [
        (SLO(), 9.0, 9.0, 9.0, 99.0, ""),
        (SLO(500, 30, 5000), 0.1, 0.5, 0.030, 5.0, ""),  # on the target is in time
        (SLO(500), 0.25, 0.501, None, 1.0, "ttft_queue"),  # half of the target spent waiting
        (SLO(500), 0.249, 0.501, None, 1.0, "ttft_execution"),
        (SLO(500), None, 0.501, None, 1.0, "ttft_execution"),
        (SLO(500, 30), 0.0, 0.1, 0.031, 1.0, "tpot"),
        (SLO(500, 30, 900), 0.0, 0.1, 0.031, 1.0, "tpot"),  # the first target missed
        (SLO(None, None, 900), 0.0, 0.1, None, 0.901, "e2e"),
        (SLO(None, 30), 0.0, 0.1, None, 1.0, ""),  # one token has no TPOT
        (SLO(), 1.0, None, None, 2.0, "not_served"),
    ],
)
def test_judge(slo, queue_s, ttft_s, tpot_s, e2e_s, miss):
    assert judge(slo, queue_s, ttft_s, tpot_s, e2e_s) == (miss == "", miss)


@pytest.mark.parametrize(
    ("late", "gaps", "met"),
    [(0, 0, True), (1, 1, False), (1, 99, False), (1, 100, True), (2, 199, False), (2, 200, True)],
)
def test_one_gap_in_a_hundred_may_be_longer_than_the_target(late, gaps, met):
    slo = SLO(tpot_ms=30, e2e_ms=900, itl_ms=50)
    miss = "" if met else "itl"
    assert judge(slo, 0.0, 0.1, 0.030, 0.9, late, gaps) == (met, miss)
    assert judge(slo, 0.0, 0.1, 0.031, 0.9, late, gaps) == (False, "tpot"), "the mean comes first"
    assert judge(slo, 0.0, 0.1, 0.030, 1.0, late, gaps) == (False, miss or "e2e")


def test_an_outcome_is_timed_from_arrival_and_tpot_is_the_mean_after_the_first_token():
    books = Accounting(JOURNAL, TENANTS)
    one = track("r", slo=SLO(2000, 600))
    books.arrive(one)
    one.admitted_s, one.policy, one.epoch = 10.5, "edf", 7
    one.on_tokens(1, 11.0)
    one.on_tokens(2, 12.0)
    one.on_tokens(1, 12.5)
    left = books.leave("r", "stop", 13.0)
    assert left is not None
    assert (left.queue_s, left.ttft_s, left.tpot_s, left.e2e_s) == (0.5, 1.0, 0.5, 3.0)
    assert (left.output_tokens, left.met, left.policy, left.epoch) == (4, True, "edf", 7)
    assert books.leave("r", "stop", 14.0) is None, "it leaves once"


@pytest.mark.parametrize(
    ("tokens_s", "left_s", "met", "miss"),
    [
        ([], 2.0, False, ""),  # nothing was due yet: neither
        ([], 2.1, False, "not_served"),
        ([1.0], 1.1, True, ""),
        ([2.1], 2.2, False, "ttft_execution"),
        ([1.0, 1.5, 2.0], 2.3, True, ""),
        ([1.0, 2.0, 3.0], 3.1, False, "tpot"),
        ([1.0, 1.5], 4.0, False, "tpot"),  # it waited 2.5 s for the third one
        ([1.0], 1.7, False, "tpot"),
        ([1.0, *(1.5 + 0.5 * i for i in range(20))], 11.1, False, "e2e"),
    ],
)
def test_a_request_whose_client_left_is_judged_by_what_was_due(tokens_s, left_s, met, miss):
    books = Accounting(JOURNAL, TENANTS)
    one = track("r", slo=SLO(2000, 600, 11_000))
    books.arrive(one)
    for after_s in tokens_s:
        one.on_tokens(1, 10.0 + after_s)
    left = books.leave("r", "aborted", 10.0 + left_s)
    assert left is not None
    assert (left.met, left.miss, left.withdrawn) == (met, miss, not met and not miss)
    (row,) = books.counters()
    assert (row.received, row.finished, row.aborted) == (1, 0, 1)
    assert (row.met, row.withdrawn, row.judged) == (met, left.withdrawn, 1 - left.withdrawn)


def test_a_sessions_tpot_leaves_out_the_time_until_its_client_goes_on():
    books = Accounting(JOURNAL, TENANTS)
    one = track("s", slo=SLO(2000, 600))
    books.arrive(one)
    for began_s in (11.0, 50.0):
        one.on_tokens(1, began_s)
        one.on_tokens(2, began_s + 1.0)
        one.end_answer(3, began_s + 1.0)
    left = books.leave("s", "aborted", 90.0)
    assert left is not None
    assert (left.tpot_s, left.output_tokens, left.met) == (0.5, 6, True)


@pytest.mark.parametrize("finish", ["error", "rejected", "unfinished"])
def test_what_was_not_served_to_its_end_has_met_nothing(finish):
    books = Accounting(JOURNAL, TENANTS)
    one = track("r", slo=SLO(2000))
    books.arrive(one)
    one.on_tokens(3, 10.1)
    left = books.leave("r", finish, 10.2)
    assert left is not None
    assert (left.met, left.miss, left.finish) == (False, "not_served", finish)
    (row,) = books.counters()
    assert (row.received, row.finished, row.aborted, row.met) == (1, 0, 1, 0)
    assert row.output_tokens == 3


def test_tenants_beyond_the_bound_are_counted_as_other_and_stay_there():
    books = Accounting(JOURNAL, TENANTS)
    for i in range(50):
        books.arrive(track(f"r{i}", tenant=f"t{i % 10}"))
    for i in range(50):
        books.leave(f"r{i}", "aborted", 11.0)
    rows = {row.tenant: (row.received, row.aborted) for row in books.counters()}
    assert rows == {"t0": (5, 5), "t1": (5, 5), "t2": (5, 5), "other": (35, 35)}
    seen = {event.tenant for event in books.page(0, 999).arrivals}
    assert seen == {f"t{i}" for i in range(10)}, "the journal keeps the names"


def test_memory_is_bounded_by_the_journal_and_the_requests_inside():
    books = Accounting(JOURNAL, TENANTS)
    for i in range(5000):
        books.arrive(track(f"r{i}", tenant=f"t{i}"))
        books.leave(f"r{i}", "stop", 11.0)
    assert len(books.tracks) == 0
    assert len(books.counters()) == TENANTS + 1
    page = books.page(0, 10**6)
    assert (page.lost, len(page.arrivals) + len(page.outcomes)) == (10_000 - JOURNAL, JOURNAL)


def test_a_reader_that_followed_another_engine_starts_again():
    books = Accounting(JOURNAL, TENANTS)
    books.arrive(track("r"))
    page = books.page(cursor=5000, limit=10)
    assert ([event.seq for event in page.arrivals], page.cursor, page.lost) == ([0], 1, 0)


class AccountingMachine(RuleBasedStateMachine):
    """Requests come, produce and leave; readers at their own pace follow the journal."""

    def __init__(self) -> None:
        super().__init__()
        self.books = Accounting(JOURNAL, TENANTS)
        self.now_s, self.count = 10.0, 0
        self.seen: dict[int, list[int]] = {reader: [] for reader in range(3)}
        self.cursors, self.lost = dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 0)
        self.tokens: dict[str, int] = defaultdict(int)

    @rule(tenant=st.sampled_from("abcdef"), burst=st.integers(1, 60))
    def arrive(self, tenant, burst):
        for _ in range(burst):
            self.count += 1
            self.books.arrive(track(f"r{self.count}", tenant, SLO(1000)))

    @precondition(lambda self: self.books.tracks)
    @rule(which=st.integers(0, 10**6), count=st.integers(1, 5), by_s=st.floats(0, 2))
    def produce(self, which, count, by_s):
        self.now_s += by_s
        name = list(self.books.tracks)[which % len(self.books.tracks)]
        self.books.tracks[name].on_tokens(count, self.now_s)
        self.tokens[name] += count

    @precondition(lambda self: self.books.tracks)
    @rule(finish=st.sampled_from(["stop", "length", "aborted", "error"]), most=st.integers(1, 60))
    def leave(self, finish, most):
        for name in list(self.books.tracks)[:most]:
            left = self.books.leave(name, finish, self.now_s)
            assert left is not None
            assert left.output_tokens == self.tokens[name]

    @rule(reader=st.integers(0, 2), limit=st.integers(0, 40))
    def read(self, reader, limit):
        cursor = self.cursors[reader]
        page = self.books.page(cursor, limit)
        events: list[Arrival | Outcome] = [*page.arrivals, *page.outcomes]
        numbers = sorted(event.seq for event in events)
        assert numbers == list(range(cursor + page.lost, page.cursor)), "no gap, nothing twice"
        assert len(numbers) <= limit
        assert [event.seq for event in page.arrivals] == sorted(e.seq for e in page.arrivals)
        self.seen[reader] += numbers
        self.lost[reader] += page.lost
        self.cursors[reader] = page.cursor

    @invariant()
    def the_totals_add_up(self):
        rows = self.books.counters()
        inside = len(self.books.tracks)
        assert sum(row.received for row in rows) == self.count
        assert sum(row.finished + row.aborted for row in rows) + inside == self.count
        assert all(row.met + row.withdrawn <= row.finished + row.aborted for row in rows)
        left = sum(self.tokens.values()) - sum(t.output_tokens for t in self.books.tracks.values())
        assert sum(row.output_tokens for row in rows) == left
        assert len({row.tenant for row in rows}) <= TENANTS + 1

    @invariant()
    def every_event_was_seen_lost_or_is_still_to_come(self):
        for reader, cursor in self.cursors.items():
            assert len(self.seen[reader]) + self.lost[reader] == cursor <= self.books.head
        kept = self.books.page(0, 10**6)
        assert len(kept.arrivals + kept.outcomes) == min(JOURNAL, self.books.head)


AccountingMachine.TestCase.settings = settings(
    max_examples=50, stateful_step_count=30, deadline=None
)
TestAccountingMachine = AccountingMachine.TestCase


@settings(deadline=None)
@given(
    ttft_s=st.none() | st.floats(0, 100), tpot_s=st.none() | st.floats(0, 10),
    queue_s=st.none() | st.floats(0, 100), e2e_s=st.floats(0, 100),
    slo=st.builds(SLO, *(st.none() | st.floats(0.1, 1e5),) * 3),
)  # fmt: skip
def test_judge_gives_a_reason_exactly_when_a_target_was_missed(ttft_s, tpot_s, queue_s, e2e_s, slo):
    met, miss = judge(slo, queue_s, ttft_s, tpot_s, e2e_s)
    assert met == (miss == "")
    pairs = [(ttft_s, slo.ttft_ms), (tpot_s, slo.tpot_ms), (e2e_s, slo.e2e_ms)]
    late = [s is not None and target is not None and s * 1000 > target for s, target in pairs]
    assert met == (ttft_s is not None and not any(late))

"""Does the waiting queue stay a sorted list under everything the scheduler does to it?"""

import math
from heapq import heappop, heappush

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.core.state import NONE
from serving.core.triage import ROUGHLY
from serving.policies import POLICIES, PolicyContext, complete_params
from tests.serving.hook.test_queue import MAX_WAIT_S, NAMES, RATE, new_queue
from tests.serving.samples import LightRequest, view

FIRST, NORMAL, PARKED, HOPELESS = -1, 0, 1, 2
ROWS = len(new_queue().core.requests)


class QueueMachine(RuleBasedStateMachine):
    """The queue against a list in queue order that is sorted anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.count, self.rate, self.load = 0.0, 0, RATE, 0.0
        self.policy, self.params = "fcfs", complete_params("fcfs", {})
        self.triage = False
        self.queue = new_queue()
        self.waiting: list[LightRequest] = []  # in queue order
        self.out: list[LightRequest] = []

    def rank(self, request: LightRequest, parked: list[LightRequest]) -> int:
        one, policy = request.view, POLICIES[self.policy]
        if policy.starvation_free and not self.triage:
            return NORMAL
        if self.is_starved(request):
            return FIRST
        if policy.demotes and self.is_hopeless(request):
            return HOPELESS
        return PARKED if one.request_id in {r.view.request_id for r in parked} else NORMAL

    def is_starved(self, request: LightRequest) -> bool:
        return bool(request.num_output_tokens) or self.now_s >= request.view.arrival_s + MAX_WAIT_S

    def is_hopeless(self, request: LightRequest) -> bool:
        one = request.view
        return self.now_s >= one.deadline_s - one.prompt_tokens * self.rate

    def parked(self) -> list[LightRequest]:
        """Whom triage gives up, after Moore and Hodgson; `test_triage` says why these."""
        given_up: list[LightRequest] = []
        kept: list[tuple[float, int, int]] = []
        done_s = self.now_s
        for number, request in sorted(
            enumerate(self.waiting), key=lambda each: (each[1].view.deadline_s, each[0])
        ):
            due_s = request.view.deadline_s
            if self.is_starved(request) or self.is_hopeless(request) or due_s == math.inf:
                continue
            tokens, freed = request.view.prompt_tokens, 0
            done_s += tokens * (ROUGHLY * self.rate)
            cost = float(np.float32(tokens / request.view.weight))
            heappush(kept, (-cost, number, tokens))
            while freed < tokens and done_s > due_s:
                _, dearest, gone = heappop(kept)
                freed += gone
                done_s -= gone * (ROUGHLY * self.rate)
                given_up.append(self.waiting[dearest])
        return given_up if self.triage else []

    def in_order(self) -> list[LightRequest]:
        at, parked = PolicyContext(self.rate, self.load, self.params), self.parked()

        def sort_key(request: LightRequest) -> tuple[int, tuple[float, ...]]:
            rank = self.rank(request, parked)
            key = POLICIES[self.policy].key_of(request.view, at)
            return rank, (request.view.arrival_s,) if rank == FIRST else key

        return sorted(self.waiting, key=sort_key)

    @rule(
        age_s=st.floats(0, 60), due_s=st.floats(-5, 60) | st.just(math.inf),
        prompt=st.integers(0, 2000), priority=st.integers(-2, 2), weight=st.floats(0.1, 5),
    )  # fmt: skip
    def add(self, age_s, due_s, prompt, priority, weight):
        self.count += 1
        name, arrival_s = f"r{self.count}", self.now_s - age_s
        one = view(name, arrival_s, arrival_s + due_s, prompt, priority, weight)
        request = LightRequest(one)
        self.queue.add_request(request)
        self.waiting.append(request)

    def begin_step(self):
        """What comes before each step of the engine, with a pass of triage."""
        self.queue.core.engine["triage_due_s"] = self.now_s
        self.queue.advance(self.now_s)
        self.queue.refresh_cached()

    @precondition(lambda self: self.waiting)
    @rule()
    def pop(self):
        self.begin_step()
        expected = self.in_order()[0]
        assert self.queue.peek_request() is expected
        assert self.queue.pop_request() is expected
        self.waiting.remove(expected)
        self.out.append(expected)

    @precondition(lambda self: self.out)
    @rule(produced=st.integers(0, 2), which=st.integers(0))
    def preempt(self, produced, which):
        self.queue.end_step()  # what runs was taken in a step before
        request = self.out.pop(which % len(self.out))
        request.num_output_tokens += produced
        self.queue.prepend_request(request)
        self.waiting.insert(0, request)

    @precondition(lambda self: len(self.waiting) > 1)
    @rule(count=st.integers(1, 3))
    def skip_and_put_back(self, count):
        """What vLLM does with requests that cannot start in this step."""
        self.begin_step()
        skipped = self.in_order()[:count]
        assert [self.queue.pop_request() for _ in skipped] == skipped
        self.queue.prepend_requests(reversed(skipped))  # they come back as they were

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0))
    def remove(self, which):
        request = self.waiting.pop(which % len(self.waiting))
        self.queue.remove_request(request)
        with pytest.raises(ValueError, match=request.request_id):
            self.queue.remove_request(request)

    @rule(every=st.integers(1, 4))
    def remove_some(self, every):
        gone = self.waiting[::every]
        self.queue.remove_requests([*self.out, *gone])
        self.waiting = [r for r in self.waiting if r not in gone]

    @rule(
        name=st.sampled_from(NAMES), rate=st.sampled_from([0.0, RATE, 0.05]), triage=st.booleans()
    )
    def set_policy(self, name, rate, triage):
        self.policy, self.rate, self.params = name, rate, complete_params(name, {})
        self.triage = triage
        self.queue.set_policy(name, {}, rate, triage=triage)

    @rule(load=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    def set_load(self, load):
        self.load = load
        self.queue.set_load(load, self.rate)

    @rule(by_s=st.floats(0, 40))
    def advance(self, by_s):
        self.now_s += by_s
        self.queue.advance(self.now_s)

    @invariant()
    def nothing_is_lost_or_there_twice(self):
        assert len(self.queue) == len(self.waiting)
        assert bool(self.queue) == bool(self.waiting)
        assert all(request in self.queue for request in self.waiting)
        assert not any(request in self.queue for request in self.out)
        assert {id(r) for r in self.queue} == {id(r) for r in self.waiting}
        assert len(list(self.queue)) == len(self.waiting)
        named = [self.queue.rows.requests[row] for row in self.queue.waiting_rows()]
        assert {id(r) for r in named} == {id(r) for r in self.waiting}

    @invariant()
    def the_order_is_the_sorted_one(self):
        self.begin_step()
        expected = self.in_order()
        assert list(self.queue) == expected
        if expected:
            assert self.queue.peek_request() is expected[0]
        ranks = [self.rank(request, self.parked()) for request in expected]
        tokens = [request.view.prompt_tokens for request in expected]
        hopeless = sum(n for n, rank in zip(tokens, ranks, strict=True) if rank == HOPELESS)
        assert self.queue.backlog_tokens == sum(tokens) - hopeless

    @invariant()
    def the_rows_are_those_that_wait(self):
        core = self.queue.core
        engine, queued = core.engine[0], np.flatnonzero(core.requests["queued"])
        assert len(queued) == engine["waiting"] == len(self.waiting)
        rows, row = [], engine["front"]
        while row != NONE:
            rows.append(row)
            row = core.requests["behind"][row]
        assert sorted(rows) == queued.tolist()
        assert engine["back"] == (rows[-1] if rows else NONE)
        assert len(core.requests) == ROWS, "there is room for all of them"

    @rule()
    def serve_all(self):
        """The heaps hold everybody who waits, and nobody who has left."""
        self.begin_step()
        expected, core = self.in_order(), self.queue.core
        assert [self.queue.pop_request() for _ in expected] == expected
        assert {lane.waiting for lane in self.queue.lanes} <= {0}
        assert (core.engine["due"][0], set(core.tenants["first"])) == (NONE, {NONE})
        self.waiting, self.out = [], [*self.out, *expected]


QueueMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase

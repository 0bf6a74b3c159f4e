"""Does the waiting queue keep every request once, and serve them in the promised order?"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vllm.v1.core.sched.request_queue import FCFSRequestQueue

from serving.policies import POLICIES, Policy, PolicyCard, PolicyContext, complete_params
from serving.queue import PolicyQueue
from tests.serving.samples import LightRequest, view

MAX_WAIT_S = 50.0
RATE = 0.01  # prefill seconds per token
NAMES = sorted(POLICIES)
DEMOTING = [name for name in NAMES if POLICIES[name].demotes]


def no_error(policy: str, error: Exception) -> None:
    raise AssertionError(f"{policy} raised {error!r}")


def new_queue(policy: str = "fcfs") -> PolicyQueue:
    queue = PolicyQueue(lambda request: request.view, MAX_WAIT_S, no_error)
    queue.set_policy(policy, {}, RATE)
    return queue


def drain(queue: PolicyQueue) -> list[str]:
    return [queue.pop_request().request_id for _ in range(len(queue))]


# A queue without heaps: a list in queue order, and a sort.
FIRST, NORMAL, HOPELESS = -1, 0, 1


class QueueMachine(RuleBasedStateMachine):
    """The queue against a sorted list, under everything the scheduler does to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s, self.count, self.rate, self.load = 0.0, 0, RATE, 0.0
        self.policy, self.params = "fcfs", complete_params("fcfs", {})
        self.queue = new_queue()
        self.waiting: list[LightRequest] = []  # in queue order
        self.out: list[LightRequest] = []
        self.peak = 0

    def rank(self, request: LightRequest) -> int:
        one, policy = request.view, POLICIES[self.policy]
        if policy.starvation_free:
            return NORMAL
        if request.num_output_tokens or self.now_s >= one.arrival_s + MAX_WAIT_S:
            return FIRST
        hopeless_at_s = one.deadline_s - one.prompt_tokens * self.rate
        return HOPELESS if policy.demotes and self.now_s >= hopeless_at_s else NORMAL

    def in_order(self) -> list[LightRequest]:
        at = PolicyContext(self.rate, self.load, self.params)

        def sort_key(request: LightRequest) -> tuple[int, tuple[float, ...]]:
            rank = self.rank(request)
            key = POLICIES[self.policy].key(request.view, at)
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

    @precondition(lambda self: self.waiting)
    @rule()
    def pop(self):
        self.queue.advance(self.now_s)
        expected = self.in_order()[0]
        assert self.queue.peek_request() is expected
        assert self.queue.pop_request() is expected
        self.waiting.remove(expected)
        self.out.append(expected)

    @precondition(lambda self: self.out)
    @rule(produced=st.integers(0, 2), which=st.integers(0))
    def preempt(self, produced, which):
        request = self.out.pop(which % len(self.out))
        request.num_output_tokens += produced
        self.queue.prepend_request(request)
        self.waiting.insert(0, request)

    @precondition(lambda self: len(self.waiting) > 1)
    @rule(count=st.integers(1, 3))
    def skip_and_put_back(self, count):
        """What vLLM does with requests that cannot start in this step."""
        self.queue.advance(self.now_s)
        skipped = self.in_order()[:count]
        assert [self.queue.pop_request() for _ in skipped] == skipped
        self.queue.prepend_requests(reversed(skipped))
        self.waiting = skipped + [r for r in self.waiting if r not in skipped]

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

    @rule(name=st.sampled_from(NAMES), rate=st.sampled_from([0.0, RATE, 0.05]))
    def set_policy(self, name, rate):
        self.policy, self.rate, self.params = name, rate, complete_params(name, {})
        self.queue.set_policy(name, {}, rate)

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
        views = [one.request_id for one in self.queue.views()]
        assert sorted(views) == sorted(r.request_id for r in self.waiting)

    @invariant()
    def the_order_is_the_sorted_one(self):
        self.queue.advance(self.now_s)
        expected = self.in_order()
        assert list(self.queue) == expected
        tokens = sum(r.view.prompt_tokens for r in expected if self.rank(r) != HOPELESS)
        assert self.queue.backlog_tokens == tokens

    @invariant()
    def the_heaps_stay_small(self):
        most = 2 * len(self.waiting) + 66
        assert len(self.queue._heap) <= most
        assert len(self.queue._events) <= most


QueueMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase


requests_of = st.integers(0, 9)  # index into the requests of a differential run
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "prepend", "pop", "peek", "remove", "advance"]),
        requests_of,
    )
    | st.tuples(
        st.sampled_from(["prepend_requests", "remove_requests"]), st.lists(requests_of, max_size=4)
    ),
    max_size=40,
)


@settings(deadline=None)
@given(operations=OPERATIONS)
def test_fcfs_is_exactly_vllms_own_queue(operations):
    requests = [LightRequest(view(f"r{i}", 9.0 - i, 1.0, 100 * i), i % 3) for i in range(10)]
    ours, stock, now_s = new_queue("fcfs"), FCFSRequestQueue(), 0.0

    for name, which in operations:
        chosen = [requests[i] for i in dict.fromkeys(which if isinstance(which, list) else [which])]
        queued = chosen[0] in stock if chosen else False
        match name:
            case "add" | "prepend" if not queued:
                for queue in (ours, stock):
                    getattr(queue, f"{name}_request")(chosen[0])
            case "prepend_requests":
                fresh = [request for request in chosen if request not in stock]
                for queue in (ours, stock):
                    queue.prepend_requests(fresh)
            case "remove_requests":
                for queue in (ours, stock):
                    queue.remove_requests(chosen)
            case "pop" | "peek" if stock:
                method = f"{name}_request"
                assert getattr(ours, method)() is getattr(stock, method)()
            case "pop" | "peek":
                for queue in (ours, stock):
                    with pytest.raises(IndexError):
                        getattr(queue, f"{name}_request")()
            case "remove" if queued:
                for queue in (ours, stock):
                    queue.remove_request(chosen[0])
            case "remove":
                for queue in (ours, stock):
                    with pytest.raises(ValueError):
                        queue.remove_request(chosen[0])
            case "advance":
                now_s += 20.0 * which
                ours.advance(now_s)
        assert list(ours) == list(stock)
        assert (len(ours), bool(ours)) == (len(stock), bool(stock))


@pytest.mark.parametrize("name", [name for name in NAMES if not POLICIES[name].starvation_free])
def test_one_that_waited_too_long_comes_before_all_others(name):
    queue = new_queue(name)
    worst = view("worst", 0.0, 1e6, 10**6, priority=99, weight=1e-3)
    queue.add_request(LightRequest(worst))
    for i in range(5):
        queue.add_request(LightRequest(view(f"r{i}", 1.0 + i, 30.0, 1, weight=10.0)))
    queue.advance(MAX_WAIT_S - 0.001)
    waiting = [request.request_id for request in queue]
    queue.advance(MAX_WAIT_S)
    assert queue.peek_request().request_id == "worst"
    if name in DEMOTING:  # the others were hopeless by then, and came last before
        assert waiting[0] == "worst"
    else:
        assert waiting[-1] == "worst"


@pytest.mark.parametrize("name", DEMOTING)
def test_the_hopeless_come_last_and_are_not_in_the_backlog(name):
    queue = new_queue(name)
    queue.add_request(LightRequest(view("late", 0.0, 10.0, 500)))  # prefill takes 5 s
    queue.add_request(LightRequest(view("later", 0.0, 30.0, 500)))
    queue.advance(4.9)
    assert [request.request_id for request in queue] == ["late", "later"]
    assert queue.backlog_tokens == 1000
    queue.advance(5.0)
    assert [request.request_id for request in queue] == ["later", "late"]
    assert queue.backlog_tokens == 500


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fcfs"])
def test_a_preempted_request_that_has_begun_to_answer_comes_first(name):
    queue = new_queue(name)
    for i in range(3):
        queue.add_request(LightRequest(view(f"r{i}", 1.0 + i, 5.0, 1, -5)))
    queue.prepend_request(LightRequest(view("resumed", 4.0, math.inf, 9999, 5), 1))
    queue.prepend_request(LightRequest(view("skipped", 4.0, math.inf, 9999, 5), 0))
    queue.advance(4.0)
    assert drain(queue) == ["resumed", "r0", "r1", "r2", "skipped"]


def test_bad_parameters_leave_the_queue_as_it_was():
    queue = new_queue("edf")
    queue.add_request(LightRequest(view("r", 0.0, 9.0)))
    with pytest.raises(ValueError, match=r"edf\.alpha"):
        queue.set_policy("edf", {"alpha": 99.0}, RATE)
    assert queue.policy.name == "edf"
    assert drain(queue) == ["r"]


class Faulty(Policy):
    """Raises at the n-th key it is asked for."""

    name = "faulty"
    demotes = True
    follows_load = True
    card = PolicyCard("nothing", "everything")

    def __init__(self, good_calls: int) -> None:
        self.good_calls = good_calls

    def key(self, view, context):
        self.good_calls -= 1
        if self.good_calls < 0:
            raise ZeroDivisionError("broken")
        return (-view.arrival_s,)


@pytest.mark.parametrize("good_calls", range(12))
def test_a_policy_that_raises_gives_way_to_fcfs_and_loses_nothing(good_calls, monkeypatch):
    monkeypatch.setitem(POLICIES, "faulty", Faulty(good_calls))
    errors = []
    queue = PolicyQueue(lambda r: r.view, MAX_WAIT_S, lambda name, error: errors.append(name))
    for i in range(4):
        queue.add_request(LightRequest(view(f"r{i}", float(i), 6.0)))
    queue.set_policy("faulty", {}, RATE)  # 4 keys
    queue.prepend_request(LightRequest(view("p", 0.0, 90.0)))
    queue.advance(6.0)  # demotes 4
    queue.set_load(0.5, RATE)
    queue.set_load(1.0, RATE)
    assert errors == ["faulty"], "told once"
    assert queue.policy.name == "fcfs"
    assert (len(queue), queue.backlog_tokens) == (5, 500)
    assert drain(queue) == ["p", "r0", "r1", "r2", "r3"]


@pytest.mark.parametrize("key", [None, 1.0, ("a",), (math.nan,), (None, 1.0)], ids=str)
def test_a_key_that_cannot_be_compared_is_a_fault_of_the_policy(key, monkeypatch):
    faulty = Faulty(99)
    monkeypatch.setattr(faulty, "key", lambda view, context: key)
    monkeypatch.setitem(POLICIES, "faulty", faulty)
    errors = []
    queue = PolicyQueue(lambda r: r.view, MAX_WAIT_S, lambda name, error: errors.append(name))
    queue.set_policy("faulty", {}, RATE)
    for i in range(3):
        queue.add_request(LightRequest(view(f"r{i}")))
    assert errors == ["faulty"]
    assert drain(queue) == ["r0", "r1", "r2"]


def test_memory_follows_the_requests_inside_not_those_that_passed():
    queue = new_queue("edf")
    for i in range(3000):
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 40.0 + i)))
        if i % 3:
            queue.remove_request(queue.peek_request())
    for _ in range(len(queue)):
        queue.pop_request()
    assert len(queue._heap) <= 65
    assert len(queue._events) <= 65

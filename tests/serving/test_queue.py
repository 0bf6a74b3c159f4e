"""Does the waiting queue keep every request once, and serve them in the promised order?"""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.request_queue import FCFSRequestQueue

from serving.policies import POLICIES, Policy, PolicyCard
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


requests_of = st.integers(0, 9)  # index into the requests of a differential run
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "prepend", "pop", "skip", "peek", "remove", "advance"]),
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
                ours.end_step()  # what was taken before has started: it comes back preempted
                for queue in (ours, stock):
                    getattr(queue, f"{name}_request")(chosen[0])
            case "prepend_requests":
                fresh = [request for request in chosen if request not in stock]
                ours.end_step()
                for queue in (ours, stock):
                    queue.prepend_requests(fresh)
            case "skip":  # the first ones cannot start in this step: vLLM hands them back
                count = min(which % 4, len(stock))
                for queue in (ours, stock):
                    skipped = FCFSRequestQueue()
                    for _ in range(count):
                        skipped.prepend_request(queue.pop_request())
                    queue.prepend_requests(skipped)
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
        other = view(f"r{i}", 1.0 + i, 30.0, 1, weight=10.0)
        queue.add_request(LightRequest(replace(other, cached_tokens=10**6)))
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
    with pytest.raises(ValueError, match=r"edf\.kappa"):
        queue.set_policy("edf", {"kappa": 9999.0}, RATE)
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
    for load in (0.5, 1.0):
        queue.set_load(load, RATE)
        queue.advance(6.0)  # re-keys
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


def test_every_key_follows_a_load_while_cached_prefixes_are_looked_up_too():
    """Both go through the queue, some entries a step; neither may take the other's turns."""
    queue, rng = new_queue("slide"), random.Random(3)
    for i in range(1000):
        queue.add_request(
            LightRequest(view(f"r{i}", rng.random(), 50.0 + 100 * rng.random(), rng.randrange(900)))
        )
    for step in range(300):
        if step in (0, 40):  # the second change comes amid the first lap
            queue.set_load(1.0 if step else 0.5, RATE)
        queue.advance(2.0)
        queue.refresh_cached()
        queue.add_request(LightRequest(view(f"late{step}", 2.0, 60.0 + step, 50 + step)))
    kept = list(queue)
    queue.set_policy("slide", {}, RATE)  # re-keys everything at once
    assert kept == list(queue)


def test_memory_follows_the_requests_inside_not_those_that_passed():
    queue = new_queue("edf")
    for i in range(3000):
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 40.0 + i)))
        if i % 3:
            queue.remove_request(queue.peek_request())
    for _ in range(len(queue)):
        queue.pop_request()
    assert sum(len(lane.heap) for lane in queue.lanes) <= 65
    assert len(queue._events) <= 65


def test_buckets_switched_off_leave_nobody_behind():
    queue = new_queue("edf")
    queue.set_policy("edf", {}, RATE, 1.0, buckets=True)
    for i in range(3):  # 30 s of work each, of a tenant that may be 10 s ahead
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 500.0 - i, 3000)))
    queue.add_request(LightRequest(view("poor", 0.0, 400.0, 1, tenant="poor")))
    assert queue.peek_request().request_id == "poor"
    queue.set_policy("slide", {}, RATE, 1.0, buckets=False)
    queue.set_load(0.25, RATE)
    queue.advance(0.0)  # re-keys
    assert {it[0] for lane in queue.lanes for it in lane.heap if it[4].item == it[3]} == {0}

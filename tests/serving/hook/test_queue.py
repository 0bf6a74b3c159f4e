"""Does the waiting queue keep every request once, and serve them in the promised order?"""

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.request_queue import FCFSRequestQueue

from serving.core.standing import DEMOTED, NORMAL, OVER_SHARE
from serving.hook.queue import PolicyQueue
from serving.policies import POLICIES
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


# What makes the queue compute a key; `slide` with a kappa that is no number has none.
EVENTS: dict[str, Callable[[PolicyQueue], object]] = {
    "arrival": lambda queue: queue.add_request(LightRequest(view("new", 3.0, 90.0))),
    "preemption": lambda queue: queue.prepend_request(LightRequest(view("new", 3.0, 90.0))),
    "demotion": lambda queue: queue.advance(6.0),
    "load": lambda queue: queue.set_load(0.5, RATE),
    "costs": lambda queue: queue.set_load(0.0, 2 * RATE),
    "skipping": lambda queue: queue.prepend_request(queue.pop_request()),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_policy_whose_keys_are_no_numbers_gives_way_to_fcfs_and_loses_nothing(event):
    errors: list[str] = []
    queue = PolicyQueue(lambda r: r.view, MAX_WAIT_S, lambda name, error: errors.append(name))
    queue.set_policy("slide", {}, RATE)
    for i in range(4):
        queue.add_request(LightRequest(view(f"r{i}", float(i), 6.0 - i)))
    assert next(iter(queue)).request_id == "r3"
    queue.core.engine["kappa"] = math.nan
    EVENTS[event](queue)
    assert errors == ["slide"]
    assert (queue.policy.name, queue.params) == ("fcfs", {})
    for name, happens in EVENTS.items():
        if name not in ("arrival", "preemption"):
            happens(queue)
    assert errors == ["slide"], "told once"
    news = [request.request_id for request in queue if request.request_id == "new"]
    assert queue.backlog_tokens == 100 * len(queue) == 100 * (4 + len(news))
    olds = ["r0", "r1", "r2", "r3"]
    assert drain(queue) == (news + olds if event == "preemption" else olds + news)


def test_a_request_whose_key_is_no_number_is_a_fault_of_the_policy():
    errors: list[Exception] = []
    queue = PolicyQueue(lambda r: r.view, MAX_WAIT_S, lambda name, error: errors.append(error))
    queue.set_policy("edf", {}, RATE)
    for i, due_s in enumerate([9.0, math.nan, 5.0]):
        queue.add_request(LightRequest(view(f"r{i}", 0.0, due_s)))
    assert [type(error) for error in errors] == [ValueError]
    assert drain(queue) == ["r0", "r1", "r2"]


def test_after_a_fault_the_next_decision_is_taken_as_any_other():
    errors: list[str] = []
    queue = PolicyQueue(lambda r: r.view, MAX_WAIT_S, lambda name, error: errors.append(name))
    queue.set_policy("edf", {}, RATE)
    queue.core.engine["kappa"] = math.nan
    for i in range(3):
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 9.0 - i)))
    queue.set_policy("edf", {}, RATE)
    assert (errors, queue.policy.name, queue.params) == (["edf"], "edf", {"kappa": 0.0})
    assert drain(queue) == ["r2", "r1", "r0"]


def test_every_key_follows_another_load_or_other_costs_at_once():
    queue, rng = new_queue("slide"), random.Random(3)
    for i in range(1000):
        queue.add_request(
            LightRequest(view(f"r{i}", rng.random(), 50.0 + 100 * rng.random(), rng.randrange(900)))
        )
    for load, rate in [(0.5, RATE), (1.0, RATE), (0.25, RATE), (0.25, 2 * RATE)]:
        before = list(queue)
        queue.set_load(load, rate)
        found = list(queue)
        queue.set_policy("slide", {}, rate)  # computes everything
        assert found == list(queue) != before


def test_costs_that_moved_a_little_leave_the_keys_as_they_are():
    queue = new_queue("laxity")
    for i in range(5):
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 100.0, 1000 * i)))
    before = queue.core.places.copy()
    queue.set_load(0.0, 1.2 * RATE)
    assert (queue.core.places == before).all()
    assert queue.prefill_s_per_token == 1.2 * RATE, "new ones go by it"
    queue.set_load(0.0, 1.3 * RATE)
    assert not (queue.core.places == before).all()


def look_ups(skip: int) -> list[list[str]]:
    """Whose view is asked for in each of 40 steps, if vLLM skips so many of 10 requests."""
    asked: list[str] = []

    def view_of(request):
        asked.append(request.request_id)
        return request.view

    queue, steps = PolicyQueue(view_of, MAX_WAIT_S, no_error), []
    for i in range(10):
        queue.add_request(LightRequest(view(f"r{i}")))
    for _ in range(40):
        asked.clear()
        queue.refresh_cached()
        steps.append(list(asked))
        skipped = FCFSRequestQueue()
        for _ in range(skip):
            skipped.prepend_request(queue.pop_request())
        queue.prepend_requests(skipped)
        queue.end_step()
    return steps


@pytest.mark.parametrize("skip", [0, 3, 10])
def test_cached_prefixes_are_looked_up_in_turn_whomever_vllm_skips_in_every_step(skip):
    steps = look_ups(skip)
    assert steps[0][0] == "r0", "a new head first"
    assert all(len(step) == 2 for step in steps)
    counts = [sum(step.count(f"r{i}") for step in steps) for i in range(10)]
    assert min(counts) >= 7
    assert max(counts) <= 10


def test_what_is_found_in_the_cache_moves_a_request_and_the_backlog():
    queue = new_queue("sjf")
    requests = [LightRequest(view(f"r{i}", 0.0, math.inf, 1000 + i)) for i in range(6)]
    for request in requests:
        queue.add_request(request)
    requests[4].view = replace(requests[4].view, prompt_tokens=4, cached_tokens=1000)
    for _ in range(6):
        queue.refresh_cached()
    assert queue.backlog_tokens == 5011 + 4
    assert queue.peek_request() is requests[4]
    facts = queue.core.requests[queue.rows.by_name["r4"]]
    assert (facts["prompt_tokens"], facts["cached_tokens"]) == (4, 1000)


@pytest.mark.parametrize("policy", ["edf", "fair"])
def test_memory_follows_the_requests_inside_not_those_that_passed(policy):
    """Whichever way a request comes and goes: started, withdrawn, ended, or without remote KV."""
    queue = new_queue(policy)
    rows = len(queue.core.requests)
    for i in range(4 * rows + 9):
        one = LightRequest(view(f"r{i}", 0.0, 40.0 + i))
        queue.add_request(one)
        if i % 4 == 0:
            queue.remove_request(queue.peek_request())
        else:
            assert queue.pop_request() is one
        if i % 4 == 1:
            queue.end_step({one.request_id: 100})
        elif i % 4 > 1:
            queue.end_step()  # it loads
        if i % 4 == 2:
            queue.end_step({one.request_id: 1})
        elif i % 4 == 3:
            queue.prepend_request(one)  # nothing could be loaded
            assert queue.pop_request() is one
            queue.end_step({one.request_id: 100})
        queue.rows.close(one.request_id)
    assert (len(queue), queue.backlog_tokens, len(queue.core.requests)) == (0, 0, rows)


def test_a_client_that_leaves_while_remote_kv_loads_leaves_nothing_to_who_gets_its_row():
    queue = new_queue()
    gone, new = (
        LightRequest(view(name, prompt_tokens=7, tenant=name)) for name in ("gone", "new")
    )
    queue.add_request(gone)
    assert queue.pop_request() is gone
    queue.end_step()  # it loads
    row = queue.rows.by_name["gone"]
    queue.rows.close("gone")
    queue.add_request(new)
    assert queue.rows.by_name["new"] == row
    queue.end_step()
    assert queue.lanes.of("new").work == 0.0
    assert queue.pop_request() is new
    queue.end_step()
    assert queue.lanes.of("new").work == 7.0


@pytest.mark.parametrize("policy", ["edf", "fair", "fcfs"])
def test_any_number_of_requests_may_wait_and_of_tenants_too(policy):
    """More than there is room for at first, which grows while a request comes in."""
    queue, count = new_queue(policy), 5000
    listed = {f"t{i}": 1.0 for i in range(200)}
    queue.lanes.promise(listed, {}, 1.0)
    for i in range(count):
        one = LightRequest(view(f"r{i}", float(i), 1e6 - i, tenant=f"t{i * 7 % 200}"))
        (queue.prepend_request if i % 2 else queue.add_request)(one)
    assert (len(queue), queue.backlog_tokens, len(queue.lanes)) == (count, 100 * count, 200)
    expected = [request.request_id for request in queue]
    served = drain(queue)
    assert sorted(served) == sorted(expected)
    if policy != "fair":
        assert served == expected
    assert {lane.waiting for lane in queue.lanes} == {0}


@pytest.mark.parametrize("priority", [2**63 - 1, 2**64 - 1, -(2**63)])
def test_any_priority_that_a_client_can_send_has_a_place(priority):
    queue = new_queue("priority")
    for name, number in [("odd", priority), ("usual", 0)]:
        queue.add_request(LightRequest(view(name, priority=number)))
    assert drain(queue) == (["odd", "usual"] if priority < 0 else ["usual", "odd"])


def test_since_when_a_request_stands_behind_others_is_known_in_seconds_after_its_arrival():
    queue = new_queue()
    queue.set_policy("edf", {}, RATE, 1.0, buckets=True)
    late, meek = LightRequest(view("late", 2.0, 12.0, 500)), LightRequest(view("meek", 2.0, 900.0))
    hog = LightRequest(view("hog", 2.0, 40.0, 3000, tenant="hog"))  # 30 s, and may be 10 s ahead
    queue.advance(3.0)
    for one in (late, meek, hog):
        queue.add_request(one)
    queue.advance(8.0)  # of the late one, 5 s of prefill do not fit any more
    queue.advance(9.0)
    assert drain(queue) == ["meek", "hog", "late"]
    since_s = {
        (name, behind): after_s
        for name, row in queue.rows.by_name.items()
        for behind, after_s in enumerate(queue.core.requests["deprioritised_s"][row].tolist(), 1)
        if not math.isnan(after_s)
    }
    assert since_s == {("hog", OVER_SHARE): 1.0, ("late", DEMOTED): 6.0}


def test_buckets_switched_off_leave_nobody_behind():
    queue = new_queue("edf")
    queue.set_policy("edf", {}, RATE, 1.0, buckets=True)
    for i in range(3):  # 30 s of work each, of a tenant that may be 10 s ahead
        queue.add_request(LightRequest(view(f"r{i}", 0.0, 500.0 - i, 3000)))
    queue.add_request(LightRequest(view("poor", 0.0, 400.0, 1, tenant="poor")))
    assert queue.peek_request().request_id == "poor"
    queue.set_policy("slide", {}, RATE, 1.0, buckets=False)
    queue.set_load(0.25, RATE)
    requests = queue.core.requests
    assert set(requests["standing"][requests["queued"] > 0]) == {NORMAL}

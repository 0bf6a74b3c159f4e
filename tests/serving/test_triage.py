"""Does triage give up the fewest, and only who may be given up, and does it let them come back?"""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import triage
from serving.queue import PolicyQueue
from serving.triage import LONG, LONG_SLICE, SLICE
from tests.serving.samples import LightRequest, view
from tests.serving.test_queue import MAX_WAIT_S, new_queue

WORK_S = 0.015  # of a prompt token, as triage sees it
RATE = WORK_S / triage._ROUGHLY
jobs_of = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=7
)  # hundreds of prompt tokens, seconds until the deadline


def queue_of(jobs: list[tuple[int, float]], policy: str = "edf") -> PolicyQueue:
    """Requests j0, j1 ... of (prompt tokens, deadline), triage on, a pass done."""
    queue = new_queue()
    queue.set_policy(policy, {}, RATE, demote_hopeless=False, triage=True)
    for number, (tokens, due_s) in enumerate(jobs):
        queue.add_request(LightRequest(view(f"j{number}", 0.0, due_s, tokens)))
    queue.advance(0.0)
    return queue


def parked(queue: PolicyQueue) -> set[str]:
    assert queue._triage is not None
    return {entry.request.request_id for entry in queue._triage.parked}


def all_in_time(jobs: list[tuple[int, float]]) -> bool:
    done_s = 0.0
    for tokens, due_s in sorted(jobs, key=lambda job: job[1]):
        done_s += tokens * WORK_S
        if done_s > due_s:
            return False
    return True


@given(jobs_of)
def test_no_other_choice_saves_more(drawn):
    jobs = [(100 * hundreds, float(due_s)) for hundreds, due_s in drawn]
    lost = parked(queue_of(jobs))
    # Who cannot even begin in time is hopeless, which is not triage's business.
    sound = [(number, job) for number, job in enumerate(jobs) if job[1] - job[0] * RATE > 0.0]
    saved = [job for number, job in sound if f"j{number}" not in lost]
    assert all_in_time(saved)
    for more in range(len(saved) + 1, len(sound) + 1):
        assert not any(all_in_time([job for _, job in c]) for c in combinations(sound, more))


def test_the_dearest_is_given_up_and_comes_back_when_there_is_room():
    jobs = [(100, 3.0), (1000, 18.0), (100, 18.5), (100, 19.0)]
    queue = queue_of(jobs)
    assert parked(queue) == {"j1"}
    assert [r.request_id for r in queue] == ["j0", "j2", "j3", "j1"]
    assert queue.pop_request().request_id == "j0"
    queue.end_step()
    queue.advance(1.5)
    assert parked(queue) == {"j1"}
    queue.remove_request(next(r for r in queue if r.request_id == "j3"))
    queue.advance(1.5)
    assert not parked(queue)
    assert [r.request_id for r in queue] == ["j1", "j2"]
    assert queue.counts["parked"] == 1


def test_who_was_given_up_goes_before_the_hopeless_and_behind_all_others():
    queue = queue_of([(500, 30.0), (500, 11.9), (300, 11.0)])
    queue.set_policy("edf", {}, RATE, demote_hopeless=True, triage=True)
    queue.add_request(LightRequest(view("hopeless", 0.0, 1.0, 500)))
    queue.add_request(LightRequest(view("whenever", 0.0, math.inf, 500)))
    queue.advance(0.0)
    assert [r.request_id for r in queue] == ["j2", "j0", "whenever", "j1", "hopeless"]


def test_neither_the_starved_nor_the_resumed_nor_best_effort_is_given_up():
    queue = queue_of([(100, 1.4)] * 3)
    queue.add_request(LightRequest(view("starved", -MAX_WAIT_S, 99.0, 9000)))
    queue.prepend_request(LightRequest(view("resumed", 0.0, 99.0, 9000), num_output_tokens=5))
    queue.add_request(LightRequest(view("whenever", 0.0, math.inf, 9000)))
    queue.advance(0.0)
    assert len(parked(queue)) == 3
    assert not parked(queue) & {"starved", "resumed", "whenever"}


def test_switched_off_and_on_again_it_has_forgotten():
    queue = queue_of([(100, 2.0), (100, 2.0)])
    assert len(parked(queue)) == 1
    before = [r.request_id for r in queue]
    queue.set_policy("edf", {}, RATE, triage=False)
    assert [r.request_id for r in queue] == ["j0", "j1"] != before
    queue.set_policy("edf", {}, RATE, triage=True)
    assert [r.request_id for r in queue] == ["j0", "j1"]
    queue.advance(0.0)
    assert [r.request_id for r in queue] == before


@pytest.mark.parametrize(("long", "per_step"), [(LONG, SLICE), (0, LONG_SLICE)])
def test_a_queue_is_gone_through_over_several_steps(
    monkeypatch: pytest.MonkeyPatch, long: int, per_step: int
) -> None:
    monkeypatch.setattr(triage, "LONG", long)
    count = 3 * per_step
    queue = queue_of([(1, 2.0)] * count)
    for step in range(4):  # three full slices, and one that finds the end
        assert bool(parked(queue)) == (step > 2)
        queue.advance(0.0)
    fit = int(2.0 / WORK_S)
    assert len(parked(queue)) == count - fit
    queue.add_request(LightRequest(view("late", 0.0, 1.0, 1)))
    for _ in range(2 * 4):
        queue.advance(0.0)
    assert len(parked(queue)) == count - fit + 1, "the next pass sees who came since"


@pytest.mark.parametrize("skipped", [True, False])
def test_what_vllm_puts_back_is_looked_at_once(skipped):
    queue = queue_of([(100, 1.7), (100, 2.0), (100, 2.0)])
    assert len(parked(queue)) == 2
    taken = queue.pop_request()
    if not skipped:
        queue.end_step()
    queue.prepend_request(taken)
    queue.advance(0.0)
    assert len(parked(queue)) == 2
    assert queue._triage is not None
    assert len(queue._triage._by_deadline) == 3


def test_memory_follows_those_that_wait():
    queue = queue_of([])
    for number in range(2000):
        one = LightRequest(view(f"r{number}", 0.0, 500.0, 100))
        queue.add_request(one)
        queue.remove_request(one)
        queue.advance(0.0)
    assert queue._triage is not None
    held = queue._triage
    assert len(held._by_deadline) + len(held._new) + len(held.parked) <= 1

"""Does triage give up the least, and only who may be given up, and does it let them come back?"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.core import queue, triage
from serving.core.standing import PARKED
from serving.core.state import ORDER, Core, with_rows
from serving.core.triage import PAUSE_S, ROUGHLY
from tests.serving.core.samples import MAX_WAIT_S, core_of, put, step_begins, waiting

WORK_S = 0.015  # of a prompt token, as triage sees it
RATE = WORK_S / ROUGHLY
jobs_of = st.lists(
    st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=7
)  # hundreds of prompt tokens, seconds until the deadline
weights_of = st.one_of(
    st.just([1.0] * 7),
    st.lists(st.sampled_from((0.3, 1.0, 3.0, 10.0)), min_size=7, max_size=7),
)


def core_with(jobs: Sequence[tuple[int, float] | tuple[int, float, float]]) -> Core:
    """Rows 0, 1 ... of (prompt tokens, deadline, weight), by `edf`, triage on, a pass done."""
    core = core_of("edf", RATE, max(64, len(jobs) + 1), triage=1, demotes=0)
    for row, (tokens, due_s, *weight) in enumerate(jobs):
        put(core, row, due_s, tokens, weight=weight[0] if weight else 1.0)
    step_begins(core, 0.0)
    return core


def parked(core: Core) -> set[int]:
    facts = core.requests["facts"] * core.requests["queued"]
    return set(np.flatnonzero(facts & PARKED).tolist())


def all_in_time(jobs: Sequence[tuple[int, float, float]]) -> bool:
    done_s = 0.0
    for tokens, due_s, _ in sorted(jobs, key=lambda job: job[1]):
        done_s += tokens * WORK_S
        if done_s > due_s:
            return False
    return True


def pass_is_due(core: Core, now_s: float) -> None:
    core.engine["triage_due_s"] = now_s
    step_begins(core, now_s)


@hypothesis_settings(deadline=None)
@given(jobs_of, weights_of)
def test_no_other_choice_saves_more_where_no_longer_prompt_weighs_more(drawn, weights):
    """Of all that fit, in number where all weigh the same; else that is NP-hard."""
    lightest_last = sorted(weights[: len(drawn)], reverse=True)
    places = sorted(range(len(drawn)), key=lambda i: drawn[i][0])
    weight_of = dict(zip(places, lightest_last, strict=True))
    jobs = [(100 * long, float(due_s), weight_of[i]) for i, (long, due_s) in enumerate(drawn)]
    lost = parked(core_with(jobs))
    # Who cannot even begin in time is hopeless, which is not triage's business.
    sound = [job for job in jobs if job[1] - job[0] * RATE > 0.0]
    saved = [job for row, job in enumerate(jobs) if job in sound and row not in lost]
    assert all(jobs[row] in sound for row in lost)
    assert all_in_time(saved)
    most = max(
        sum(job[2] for job in some)
        for count in range(len(sound) + 1)
        for some in combinations(sound, count)
        if all_in_time(some)
    )
    assert sum(job[2] for job in saved) == pytest.approx(most)


@hypothesis_settings(deadline=None)
@given(jobs_of, weights_of)
def test_whatever_requests_weigh_those_that_stay_are_in_time(drawn, weights):
    some = zip(drawn, weights, strict=False)
    jobs = [(100 * long, float(due_s), weight) for (long, due_s), weight in some]
    lost = parked(core_with(jobs))
    sound = [row for row, job in enumerate(jobs) if job[1] - job[0] * RATE > 0.0]
    assert all_in_time([jobs[row] for row in sound if row not in lost])


@pytest.mark.parametrize(
    ("jobs", "lost"),
    [([(400, 6.2, 3.0), (400, 6.5, 1.0)], {1}),
     ([(400, 6.2, 1.0), (400, 6.5, 3.0)], {0}),
     ([(200, 5.0, 0.5), (100, 5.5, 1.0), (300, 7.0, 3.0)], {0}),  # 400, 100 and 100 of cost
     # 1000 tokens of weight 10 stay; it takes both of the light ones to make room.
     ([(100, 9.0, 0.5), (100, 9.5, 0.5), (1000, 15.5, 10.0)], {0, 1})],
)  # fmt: skip
def test_who_weighs_least_for_its_work_is_given_up_until_there_is_room(jobs, lost):
    assert parked(core_with(jobs)) == lost


def test_the_dearest_is_given_up_and_comes_back_when_there_is_room():
    core = core_with([(100, 3.0), (1000, 18.0), (100, 18.5), (100, 19.0)])
    assert parked(core) == {1}
    assert waiting(core) == [0, 2, 3, 1]
    assert queue.take(core) == 0
    pass_is_due(core, 1.5)
    assert parked(core) == {1}
    queue.leave(core, 3)
    pass_is_due(core, 1.5)
    assert not parked(core)
    assert waiting(core) == [1, 2]
    assert core.engine["parked"][0] == 1


def test_who_was_given_up_goes_before_the_hopeless_and_behind_all_others():
    core = core_of("edf", RATE, triage=1)
    for row, (tokens, due_s) in enumerate([(500, 30.0), (500, 11.9), (300, 11.0)]):
        put(core, row, due_s, tokens)
    put(core, 3, 1.0, 500)  # hopeless
    put(core, 4, math.inf, 500)
    step_begins(core, 0.0)
    assert waiting(core) == [2, 0, 4, 1, 3]


def test_neither_the_starved_nor_the_resumed_nor_best_effort_is_given_up():
    core = core_of("edf", RATE, triage=1, demotes=0)
    for row in range(3):
        put(core, row, 1.4, 100)
    put(core, 3, 99.0, 9000, arrival_s=-MAX_WAIT_S)
    put(core, 4, 99.0, 9000, resumed=True)
    put(core, 5, math.inf, 9000)
    step_begins(core, 0.0)
    assert parked(core) == {0, 1, 2}


def test_nobody_stays_parked_who_has_waited_too_long_since():
    core = core_with([(1000, 60.0), (1000, 61.0), (2500, 60.5)])
    assert parked(core) == {2}
    pass_is_due(core, MAX_WAIT_S)
    assert not parked(core)
    assert waiting(core) == [0, 1, 2], "oldest first"


def test_of_equal_work_and_deadline_the_one_that_came_first_is_given_up():
    """Whatever the rows and their history: `order` decides, and it is the same each time."""
    for rows in ([0, 1, 2], [2, 0, 1]):
        core = core_of("edf", RATE, triage=1, demotes=0)
        for row in rows:
            put(core, row, 4.0, 100)
        step_begins(core, 1.0)
        assert parked(core) == {rows[0]}
        assert waiting(core) == [rows[1], rows[2], rows[0]]


def test_switched_off_and_on_again_it_has_forgotten():
    core = core_with([(100, 2.0), (100, 2.0)])
    assert len(parked(core)) == 1
    before = waiting(core)
    triage.forget_parked(core)
    queue.place_all_anew(core)
    assert not parked(core)
    assert waiting(core) == [0, 1] != before
    pass_is_due(core, 0.0)
    assert waiting(core) == before


@pytest.mark.parametrize("count", [10, 3000])
def test_the_longer_the_queue_the_longer_the_pause_after_a_pass(count):
    core = core_with([(1, 2.0)] * count)
    lost = max(0, count - int(2.0 / WORK_S))
    assert len(parked(core)) == lost
    put(core, count, 1.0, 60)  # 0.9 s of work
    pause_s = count * PAUSE_S
    step_begins(core, 0.9 * pause_s)
    assert len(parked(core)) == lost, "not looked at yet"
    step_begins(core, 1.1 * pause_s)
    assert len(parked(core)) > lost or count == 10


@hypothesis_settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            jobs_of,  # these come
            st.sampled_from(("served", "put back", "preempted", "cached")),
            st.floats(0.0, 0.3),  # seconds pass
        ),
        min_size=2, max_size=14,
    )
)  # fmt: skip
def test_what_it_kept_in_mind_since_the_last_pass_is_what_there_is(events):
    """Its list is kept from pass to pass: each pass parks whom it would park in a new queue."""
    core, now_s, coming = core_with([]), 0.0, iter(range(64 * len(events)))
    core = with_rows(core, 64 * len(events))
    for event in events:
        if isinstance(event, float):
            now_s += event
        elif isinstance(event, list):
            for hundreds, due_s in event:
                row = next(coming)
                weight = (1.0, 0.3, 3.0)[row % 3]
                put(core, row, now_s + due_s, 100 * hundreds, now_s, weight)
        elif core.engine["waiting"][0]:
            row = queue.take(core)
            if event == "put back":
                queue.put_back(core, row)
            elif event == "preempted":
                queue.enter_first(core, row)
            elif event == "cached":  # more of its prompt is in the KV cache now
                queue.put_back(core, row)
                before = int(core.requests["prompt_tokens"][row])
                core.requests["prompt_tokens"][row] = 1 + before // 2
                queue.look_again(core, row, before)
            core.engine["taken"] = 0
        pass_is_due(core, now_s)
        again = core_of("edf", RATE, len(core.requests), triage=1, demotes=0)
        rows = np.flatnonzero(core.requests["queued"])
        for row in rows[np.argsort(core.places[rows, ORDER])].tolist():
            one = core.requests[row]
            facts = ("deadline_s", "prompt_tokens", "arrival_s", "weight")
            put(again, row, *(one[name] for name in facts))
        step_begins(again, now_s)
        assert parked(core) == parked(again)


@pytest.mark.parametrize("skipped", [True, False])
def test_what_vllm_puts_back_is_looked_at_once(skipped):
    core = core_with([(100, 1.7), (100, 2.0), (100, 2.0)])
    assert len(parked(core)) == 2
    row = queue.take(core)
    if skipped:
        queue.put_back(core, row)
    else:
        queue.enter_first(core, row)
    pass_is_due(core, 0.0)
    assert len(parked(core)) == 2
    assert sorted(waiting(core)) == [0, 1, 2]

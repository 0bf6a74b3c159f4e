"""A request's life is told in order, each promise against what came."""

from dataclasses import replace

import pytest

from hmas_agents.explain.life import bar, due_column, moments, targets
from serving.contracts import SLO
from tests.hmas_agents.samples import outcome

# Waits 3 s, first token after 4 s, ends after 10 s; promised: 500 ms and 30 ms.
LATE = outcome(1, 100.0, 10.0, queue_s=3.0, ttft_s=4.0, tpot_s=0.02)


def test_what_happened_comes_in_order():
    assert [(m.name, m.at_s, m.after_s) for m in moments(LATE)] == [
        ("arrived", 100.0, 0.0),
        ("admitted", 103.0, 3.0),
        ("first token", 104.0, 4.0),
        ("ended", 110.0, 10.0),
    ]


def test_being_put_behind_others_is_part_of_its_life_with_the_reason():
    passed_over = replace(
        LATE, deprioritised=(("over_share", 0.0), ("parked", 1.5), ("demoted", 2.5))
    )
    told = [(m.name, m.after_s) for m in moments(passed_over)]
    assert told[:5] == [
        ("arrived", 0.0),
        ("put off", 0.0),
        ("put off", 1.5),
        ("put off", 2.5),
        ("admitted", 3.0),
    ]
    assert "triage" in moments(passed_over)[2].why
    preempted = replace(LATE, deprioritised=(("demoted", 5.0),))  # it waited again
    assert [m.name for m in moments(preempted)][-2:] == ["put off", "ended"]


def test_what_never_happened_is_left_out():
    given_up = replace(LATE, queue_s=None, ttft_s=None, tpot_s=None, finish="aborted")
    assert [m.name for m in moments(given_up)] == ["arrived", "ended"]


def test_each_promise_is_judged_for_itself():
    first, each = targets(LATE)
    assert (first.name, first.met) == ("first token", False)
    assert (each.name, each.met) == ("per token", True)
    assert [first.over_s, each.over_s] == pytest.approx([3.5, -0.01])
    assert targets(replace(LATE, slo=SLO())) == []


def test_an_answer_of_one_token_keeps_the_promise_per_token_and_no_answer_keeps_none():
    slo = SLO(ttft_ms=500, tpot_ms=30, e2e_ms=60_000)
    one = targets(replace(LATE, slo=slo, ttft_s=0.1, tpot_s=None, output_tokens=1))
    assert [t.met for t in one] == [True, True, True]
    none = targets(replace(LATE, slo=slo, ttft_s=None, tpot_s=None, finish="aborted"))
    assert [t.met for t in none] == [False, True, False]


def test_the_bar_shares_its_columns_by_time():
    assert bar(LATE, columns=10) == "...=######"
    assert bar(replace(LATE, queue_s=None, ttft_s=None), columns=4) == "...."
    assert bar(replace(LATE, e2e_s=0.0), columns=4) == ""


def test_the_due_time_is_marked_only_within_the_bar():
    assert due_column(LATE, columns=20) == 1
    assert due_column(replace(LATE, slo=SLO(ttft_ms=10_000)), columns=20) is None
    assert due_column(replace(LATE, slo=SLO(e2e_ms=500)), columns=20) is None

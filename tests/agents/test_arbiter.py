"""The arbiter: precedence, opposition, pace; every refusal visible, none told for ever."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.agents.arbiter import TELL_AGAIN_S, Arbiter, CallRate, Verdict
from hmas_agents.agents.calls import RuleCall, step_of
from hmas_agents.agents.roster import Roster
from hmas_agents.config import AgentsConfig, Concern
from serving.contracts import Limits
from serving.contracts.rules import BY_TOOL
from tests.agents.short_states import STATES, after, with_limits
from tools import discover

TICK_S = 2.0
LIMITS = Limits(32, 1024, follow_slack=True)
ROSTER = Roster(AgentsConfig())
Asked = tuple[Concern, RuleCall]


def arbiter(min_gap_s: float = 4.0, most: int = 20) -> Arbiter:
    return Arbiter(CallRate(min_gap_s, most))


def call(tool: str, **args: Any) -> RuleCall:
    return {"name": tool, "args": {**args, "reason": "test"}}


def codes(verdict: Verdict) -> list[tuple[Concern, str]]:
    return [(refusal.concern, refusal.code) for refusal in verdict.refused]


SMALLER = call("set_token_budget", max_tokens=512, follow_slack=True)
LARGER = call("set_token_budget", max_tokens=2048, follow_slack=True)
MORE_PREFILL = call("set_prefill_share", share=0.35)
MORE_REFUSED = call("set_shed_share", share=0.25)
MORE_AT_ONCE = call("set_max_active_requests", max_requests=48)
FEWER_AT_ONCE = call("set_max_active_requests", max_requests=24)


def test_of_one_tool_the_first_in_precedence_goes():
    verdict = arbiter().arbitrate([("batching", SMALLER), ("prefill", LARGER)], LIMITS, 0.0)
    assert verdict.granted == (SMALLER,)
    assert codes(verdict) == [("prefill", "same_tool")]


@pytest.mark.parametrize(("first", "second"), [
    (SMALLER, MORE_PREFILL), (MORE_REFUSED, MORE_AT_ONCE),
    (MORE_AT_ONCE, MORE_REFUSED),
])  # fmt: skip
def test_what_pushes_the_other_way_is_refused_by_name(first, second):
    verdict = arbiter().arbitrate([("tenant_shares", first), ("prefill", second)], LIMITS, 0.0)
    assert verdict.granted == (first,)
    assert codes(verdict) == [("prefill", "opposed")]
    assert "tenant_shares has just moved" in verdict.refused[0].reason


@pytest.mark.parametrize(("first", "second"), [
    (LARGER, MORE_PREFILL), (MORE_REFUSED, FEWER_AT_ONCE), (SMALLER, MORE_REFUSED),
    (SMALLER, call("set_long_prefill_threshold", max_tokens=256)),
])  # fmt: skip
def test_what_pushes_the_same_way_or_something_else_goes(first, second):
    verdict = arbiter().arbitrate([("tenant_shares", first), ("prefill", second)], LIMITS, 0.0)
    assert verdict.granted == (first, second)


def test_a_refused_call_pushes_nothing():
    same = call("set_token_budget", max_tokens=1024, follow_slack=True)
    verdict = arbiter().arbitrate([("batching", same), ("prefill", MORE_PREFILL)], LIMITS, 0.0)
    assert verdict.granted == (MORE_PREFILL,)
    assert codes(verdict) == [("batching", "in_force")]


def test_holds_depend_on_the_way_and_gaps_do_not():
    judge = arbiter(min_gap_s=8.0)
    assert judge.arbitrate([("batching", SMALLER)], LIMITS, 100.0).granted
    now = replace(LIMITS, token_budget=512)
    smaller = call("set_token_budget", max_tokens=400, follow_slack=True)
    hold = BY_TOOL["set_token_budget"]
    assert codes(judge.arbitrate([("batching", smaller)], now, 105.9)) == [("batching", "held")]
    too_soon = judge.arbitrate([("batching", smaller)], now, 100.0 + hold.hold_down_s)
    assert codes(too_soon) == [("batching", "too_soon")]
    assert codes(judge.arbitrate([("batching", LARGER)], now, 110.0)) == [("batching", "held")]
    assert judge.arbitrate([("batching", LARGER)], now, 100.0 + hold.hold_up_s).granted


def test_a_minute_has_a_bound_over_all_tools_and_it_slides():
    judge = arbiter(min_gap_s=0.0, most=2)
    first = judge.arbitrate([("tenant_shares", MORE_REFUSED), ("batching", SMALLER)], LIMITS, 0.0)
    assert len(first.granted) == 2
    assert codes(judge.arbitrate([("prefill", MORE_PREFILL)], LIMITS, 59.9)) == [
        ("prefill", "too_many")
    ]
    assert judge.arbitrate([("prefill", MORE_PREFILL)], LIMITS, 60.0).granted


def test_calls_that_went_through_elsewhere_count_for_the_pace():
    judge = arbiter()
    judge.note([SMALLER], 100.0)
    assert codes(judge.arbitrate([("batching", LARGER)], LIMITS, 110.0)) == [("batching", "held")]


def test_a_refusal_is_news_once_a_minute_and_a_hold_never():
    judge = arbiter()
    asked: list[Asked] = [("tenant_shares", MORE_REFUSED), ("admission", MORE_AT_ONCE)]
    assert judge.arbitrate(asked, LIMITS, 0.0).news
    later: list[Asked] = [("tenant_shares", MORE_REFUSED), ("admission", MORE_AT_ONCE),
             ("batching", LARGER), ("prefill", SMALLER)]  # fmt: skip
    assert not judge.arbitrate(asked, LIMITS, 30.0).news
    assert judge.arbitrate(later, LIMITS, 40.0).news, "another tool and cause"
    assert judge.arbitrate(asked, LIMITS, TELL_AGAIN_S).news
    held = arbiter()
    held.arbitrate([("batching", SMALLER)], LIMITS, 0.0)
    assert not held.arbitrate([("batching", LARGER)], LIMITS, 2.0).news


@given(st.lists(STATES, min_size=1, max_size=60), st.floats(0, 10), st.integers(1, 30))
def test_whatever_happens_calls_are_valid_paced_and_never_flap(states, gap_s, most):
    judge, tools, limits = arbiter(gap_s, most), discover(), Limits(64, 2048, follow_slack=True)
    moves: dict[str, list[tuple[float, int]]] = {}
    for tick, drawn in enumerate(states):
        state = replace(drawn, now_s=tick * TICK_S, limits=limits)
        verdict = judge.arbitrate(ROSTER.ask(state), limits, state.now_s)
        names = [granted["name"] for granted in verdict.granted]
        assert len(set(names)) == len(names)
        for granted in verdict.granted:
            tools[granted["name"]].args.model_validate(granted["args"])
            way = step_of(granted, limits)
            assert way != 0
            moves.setdefault(granted["name"], []).append((state.now_s, way))
        limits = after(limits, verdict.granted)
    for tool, history in moves.items():
        for (before_s, _), (after_s, way) in pairwise(history):
            hold = BY_TOOL[tool]
            assert after_s - before_s >= max(gap_s, hold.hold_up_s if way > 0 else hold.hold_down_s)
    times = sorted(at_s for history in moves.values() for at_s, _ in history)
    for first_s, last_s in zip(times, times[most:], strict=False):
        assert last_s - first_s >= 60.0


@given(STATES)
def test_under_a_constant_state_the_calls_come_to_rest(state):
    judge, ways, last_s = arbiter(), dict[str, set[int]](), 0.0
    for tick in range(90):
        now_s = tick * 10.0
        verdict = judge.arbitrate(ROSTER.ask(replace(state, now_s=now_s)), state.limits, now_s)
        for granted in verdict.granted:
            ways.setdefault(granted["name"], set()).add(step_of(granted, state.limits))
            last_s = now_s
        state = with_limits(state, verdict.granted)
    assert all(len(seen) == 1 for seen in ways.values()), "no knob goes back and forth"
    assert last_s < 800.0, "at rest for good"

"""Rule agents: quiet when calm, bounded, never the present value, never flapping."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.agents import balance, batching, kv_admission
from hmas_agents.agents.arbiter import RULE_AGENTS, arbitrate
from hmas_agents.agents.calls import RuleCall
from hmas_agents.states import ShortState
from serving.contracts import Limits
from tests.agents.states import short_state
from tools import discover

TICK_S = 2.0
SHARES = st.one_of(st.none(), st.floats(0, 1))
SECONDS = st.one_of(st.none(), st.floats(-60, 60))
STATES = st.builds(
    short_state,
    waiting=st.integers(0, 500),
    hopeless_share=st.floats(0, 1),
    running=st.integers(0, 64),
    decoding=st.integers(0, 64),
    prefilling=st.integers(0, 8),
    queued_prefill_s=st.floats(0, 100),
    p10_laxity_s=SECONDS,
    decode_slack_p10_s=SECONDS,
    preemptions_per_s=st.one_of(st.just(0.0), st.floats(0, 5)),
    tpot_miss_share=SHARES,
    ttft_miss_share=SHARES,
    limits=st.builds(
        Limits,
        max_active_requests=st.integers(1, 64),
        token_budget=st.integers(1, 2048),
        long_prefill_threshold=st.sampled_from([0, 128, 1024]),
        kv_reserve=st.floats(0, 0.3),
        follow_slack=st.booleans(),
    ),
)
FIELD = {
    "set_token_budget": ("token_budget", "max_tokens"),
    "set_max_active_requests": ("max_active_requests", "max_requests"),
    "set_long_prefill_threshold": ("long_prefill_threshold", "max_tokens"),
    "set_kv_reserve": ("kv_reserve", "fraction"),
}


def present(state: ShortState, tool: str) -> Any:
    return getattr(state.limits, FIELD[tool][0])


def asked(call: RuleCall) -> Any:
    return call["args"][FIELD[call["name"]][1]]


def with_limit(limits: Limits, call: RuleCall) -> Limits:
    change: dict[str, Any] = {FIELD[call["name"]][0]: asked(call)}
    return replace(limits, **change)


def ask_all(state: ShortState, since: dict[str, float]):
    return arbitrate(c for propose in RULE_AGENTS.values() for c in propose(state, since))


@given(st.floats(0, 0.01), st.floats(0, 0.5), st.integers(0, 5), st.floats(0.001, 1))
def test_nothing_moves_at_stock_limits_while_targets_are_met(misses, occupied, waiting, slack_s):
    calm = short_state(
        tpot_miss_share=misses, ttft_miss_share=misses, kv_used=occupied, waiting=waiting,
        decode_slack_p10_s=slack_s,
    )  # fmt: skip
    assert ask_all(calm, {}) == []


def test_nothing_moves_without_data():
    assert ask_all(short_state(tpot_miss_share=None, ttft_miss_share=None), {}) == []


@given(STATES)
def test_calls_are_valid_within_the_envelope_and_change_something(state):
    tools = discover()
    for call in ask_all(state, {}):
        tools[call["name"]].args.model_validate(call["args"])
        assert asked(call) != present(state, call["name"])
        if call["name"] == "set_token_budget":
            assert asked(call) <= state.max_token_budget
            assert call["args"]["follow_slack"] == state.limits.follow_slack
        if call["name"] == "set_max_active_requests":
            assert 1 <= asked(call) <= state.max_active_requests


@given(st.lists(STATES, min_size=2, max_size=60))
def test_no_limit_changes_direction_faster_than_its_hold(states):
    holds = {  # before a move down, before a move up
        "set_token_budget": (batching.SHRINK_HOLD_S, batching.GROW_HOLD_S),
        "set_max_active_requests": (
            kv_admission.ACTIVE_DOWN_HOLD_S,
            kv_admission.ACTIVE_UP_HOLD_S,
        ),
        "set_long_prefill_threshold": (balance.OFF_HOLD_S, balance.ON_HOLD_S),
        "set_kv_reserve": (kv_admission.RESERVE_DOWN_HOLD_S, kv_admission.RESERVE_UP_HOLD_S),
    }
    moves: dict[str, list[tuple[float, bool]]] = {}
    limits = Limits(64, 2048, follow_slack=True)
    changed_at: dict[str, float] = {}
    for tick, drawn in enumerate(states):
        now_s = tick * TICK_S
        state = replace(drawn, now_s=now_s, limits=limits)
        for call in ask_all(state, {tool: now_s - at for tool, at in changed_at.items()}):
            tool, up = call["name"], asked(call) > present(state, call["name"])
            moves.setdefault(tool, []).append((now_s, up))
            changed_at[tool] = now_s
            limits = with_limit(limits, call)
    for tool, history in moves.items():
        for (before_s, was_up), (after_s, up) in pairwise(history):
            assert after_s - before_s >= holds[tool][up]
            assert after_s - before_s > TICK_S or was_up == up


@given(STATES)
def test_under_a_constant_situation_every_limit_comes_to_rest(state):
    directions: dict[str, set[bool]] = {}
    for _ in range(100):
        calls = ask_all(state, {})
        if not calls:
            break
        for call in calls:
            tool = call["name"]
            directions.setdefault(tool, set()).add(asked(call) > present(state, tool))
            state = replace(state, limits=with_limit(state.limits, call))
    assert ask_all(state, {}) == []
    assert all(len(seen) == 1 for seen in directions.values())


def test_tpot_misses_with_prefill_shrink_the_steps_down_to_the_floor():
    late = short_state(tpot_miss_share=0.4, prefilling=2, decode_slack_p10_s=-0.1)
    assert asked(batching.propose(late, {})[0]) == 1536
    floor = replace(late, limits=Limits(64, 512))
    assert batching.propose(floor, {}) == []


def test_a_smaller_step_is_not_tried_where_it_cannot_help():
    assert batching.propose(short_state(tpot_miss_share=0.9, decode_slack_p10_s=-1.0), {}) == []


def test_steps_grow_back_when_clean_but_not_at_once():
    small = short_state(limits=Limits(64, 512))
    assert asked(batching.propose(small, {"set_token_budget": 60.0})[0]) == 641
    assert batching.propose(small, {"set_token_budget": 4.0}) == []


def test_preemptions_raise_the_reserve_and_it_decays():
    bad = short_state(preemptions_per_s=0.5)
    assert asked(kv_admission.kv_reserve(bad, {})[0]) == 0.05
    clean = short_state(limits=Limits(64, 2048, kv_reserve=0.05))
    assert asked(kv_admission.kv_reserve(clean, {})[0]) == 0.025
    assert kv_admission.kv_reserve(clean, {"set_kv_reserve": 10.0}) == []
    last = short_state(limits=Limits(64, 2048, kv_reserve=0.03))
    assert asked(kv_admission.kv_reserve(last, {})[0]) == 0.0


def test_concurrency_falls_only_when_decodes_alone_are_too_slow():
    slow = short_state(
        tpot_miss_share=0.6, decode_slack_p10_s=-0.1, waiting=9, running=50, decoding=50
    )
    assert asked(kv_admission.active_requests(slow, {})[0]) == 45
    assert kv_admission.active_requests(replace(slow, prefilling=1), {}) == []
    assert kv_admission.active_requests(replace(slow, waiting=0), {}) == []


def test_a_limit_per_rank_is_compared_with_one_ranks_share():
    slow = short_state(
        tpot_miss_share=0.6, decode_slack_p10_s=-0.1, waiting=9, running=100, decoding=100
    )
    assert asked(kv_admission.active_requests(replace(slow, ranks=2), {})[0]) == 45
    crowded = replace(slow, prefilling=2, running=1800, decoding=1800, limits=Limits(64, 1000))
    assert asked(batching.propose(replace(crowded, ranks=2), {})[0]) == 901


@pytest.mark.parametrize(("laxity_s", "calls"), [(0.5, 1), (-1.0, 0), (9.0, 0), (None, 0)])
def test_long_prompts_share_the_step_only_to_save_someone(laxity_s, calls):
    held = short_state(
        ttft_miss_share=0.2, prefilling=1, waiting=5, queued_prefill_s=3.0, p10_laxity_s=laxity_s
    )
    assert len(balance.propose(held, {})) == calls


def test_kv_safety_beats_batching_beats_balance():
    assert list(RULE_AGENTS) == ["kv_admission", "batching", "balance"]
    first, second, other = (
        RuleCall(name=name, args={"v": v}) for name, v in (("t", 1), ("t", 2), ("u", 3))
    )
    assert arbitrate([first, second, other]) == [first, other]

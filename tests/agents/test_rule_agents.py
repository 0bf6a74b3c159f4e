"""Rule agents: quiet when calm, bounded, at rest under a constant state."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.agents import batching, prefill, roster
from hmas_agents.agents.arbiter import PRECEDENCE
from hmas_agents.agents.calls import RuleCall, step_of
from hmas_agents.config import AgentsConfig
from hmas_agents.states import ShortState
from serving.contracts import Limits
from serving.contracts.rules import BY_TOOL
from tests.agents.short_states import SHEDDABLE, STATES, asked, with_limits
from tests.agents.states import short_state
from tools import discover


def ask_all(state: ShortState) -> list[RuleCall]:
    return [call for _, call in roster.Roster(AgentsConfig()).ask(state)]


@given(st.floats(0, 0.01), st.floats(0, 0.5), st.integers(0, 5), st.floats(0.001, 1))
def test_nothing_moves_at_stock_limits_while_targets_are_met(misses, occupied, waiting, slack_s):
    calm = short_state(
        tpot_miss_share=misses, ttft_miss_share=misses, kv_used=occupied, waiting=waiting,
        decode_slack_p10_s=slack_s, attainment_by_class={"interactive": 1 - misses},
        attainment_by_tenant={"a": 1 - misses, "b": 1 - misses}, sheddable=SHEDDABLE,
        offered_by_tenant={"a": 0.9, "b": 0.1}, requests_by_tenant={"a": 90, "b": 10},
        sheddable_waiting=waiting,
    )  # fmt: skip
    assert ask_all(calm) == []


def test_nothing_moves_without_data():
    assert ask_all(short_state(tpot_miss_share=None, ttft_miss_share=None)) == []


@given(STATES)
def test_calls_are_valid_within_the_envelope_and_change_something(state):
    tools = discover()
    calls = ask_all(state)
    assert len({call["name"] for call in calls}) == len(calls), "at most one call per tool"
    for call in calls:
        tools[call["name"]].args.model_validate(call["args"])
        assert step_of(call, state.limits) != 0
        if call["name"] == "set_token_budget":
            assert asked(call) <= state.max_token_budget
            assert call["args"]["follow_slack"] == state.limits.follow_slack
        if call["name"] == "set_max_active_requests":
            assert 1 <= asked(call) <= state.max_active_requests
        if call["name"] == "set_shed_share":
            assert state.sheddable


@given(STATES)
def test_under_a_constant_situation_every_limit_comes_to_rest(state):
    ways: dict[str, set[int]] = {}
    for _ in range(100):
        calls = ask_all(state)
        if not calls:
            break
        for call in calls:
            ways.setdefault(call["name"], set()).add(step_of(call, state.limits))
        state = with_limits(state, calls)
    assert ask_all(state) == []
    assert all(len(seen) == 1 for seen in ways.values())


def test_every_agent_has_a_place_and_every_tool_of_a_knob_a_file():
    assert tuple(roster.RULE_AGENTS) == PRECEDENCE
    assert BY_TOOL.keys() <= discover().keys()
    assert {knob.concern for knob in BY_TOOL.values()} == set(PRECEDENCE)


def test_only_enabled_agents_are_asked():
    bad = short_state(tpot_miss_share=0.4, prefilling=2, decode_slack_p10_s=-0.1,
                      limits=Limits(64, 2048, prefill_share=0.35))  # fmt: skip
    names = {"batching": "set_token_budget", "prefill": "set_prefill_share"}
    for concern, tool in names.items():
        only = roster.Roster(AgentsConfig.model_validate({"enabled": [concern]}))
        assert [(who, call["name"]) for who, call in only.ask(bad)] == [(concern, tool)]
    assert roster.Roster(AgentsConfig(enabled=())).ask(bad) == []


class TestBatching:
    """The token budget."""

    def test_tpot_misses_with_prefill_shrink_the_steps_down_to_the_floor(self):
        late = short_state(tpot_miss_share=0.4, prefilling=2, decode_slack_p10_s=-0.1,
                           limits=Limits(64, 2048))  # fmt: skip
        assert asked(batching.propose(late)[0]) == 1536
        assert batching.propose(replace(late, limits=Limits(64, 512))) == []
        assert batching.propose(replace(late, limits=Limits(64, 2048, follow_slack=True))) == []

    def test_a_smaller_step_is_not_tried_where_it_cannot_help(self):
        late = short_state(tpot_miss_share=0.9, decode_slack_p10_s=-1.0, limits=Limits(64, 2048))
        assert batching.propose(late) == []

    def test_steps_grow_back_when_clean(self):
        small = short_state(limits=Limits(64, 512))
        assert asked(batching.propose(small)[0]) == 641

    def test_the_decodes_of_one_rank_keep_their_place(self):
        crowded = short_state(
            tpot_miss_share=0.6, decode_slack_p10_s=-0.1, waiting=9, prefilling=2, running=1800,
            decoding=1800, limits=Limits(64, 1000), ranks=2,
        )  # fmt: skip
        assert asked(batching.propose(crowded)[0]) == 901


LATE = {"ttft_miss_share": 0.2, "prefilling": 1, "waiting": 5, "queued_prefill_s": 3.0,
        "p10_laxity_s": 0.5}  # fmt: skip


class TestBalance:
    """Between prompts, and between prefill and decode."""

    @pytest.mark.parametrize(("laxity_s", "calls"), [(0.5, 2), (-1.0, 0), (9.0, 0), (None, 0)])
    def test_only_to_save_someone(self, laxity_s, calls):
        assert len(prefill.propose(short_state(**LATE | {"p10_laxity_s": laxity_s}))) == calls

    def test_not_in_overload_nor_without_misses(self):
        assert prefill.propose(short_state(**LATE, hopeless_share=0.03)) == []
        assert prefill.propose(short_state(**LATE | {"ttft_miss_share": 0.05})) == []

    def test_prefill_takes_no_time_from_decodes_that_miss(self):
        names = [c["name"] for c in prefill.propose(short_state(**LATE, tpot_miss_share=0.05))]
        assert names == ["set_long_prefill_threshold"]
        unsized = replace(short_state(**LATE), limits=Limits(64, 2048))
        assert prefill.prefill_share(unsized) == []
        given = Limits(64, 2048, follow_slack=True, prefill_share=0.35)
        slow = short_state(**LATE, tpot_miss_share=0.11, limits=given)
        assert asked(prefill.prefill_share(slow)[0]) == 0.0
        assert prefill.prefill_share(replace(slow, tpot_miss_share=0.05)) == []

    def test_both_end_when_nothing_waits(self):
        limits = Limits(64, 2048, long_prefill_threshold=1024, prefill_share=0.35)
        over = prefill.propose(short_state(limits=limits))
        assert [(c["name"], asked(c)) for c in over] == [
            ("set_long_prefill_threshold", 0), ("set_prefill_share", 0.0),
        ]  # fmt: skip

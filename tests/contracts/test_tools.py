"""Conformance of every tool in the registry.

A new tool joins with one line of ARGS and BAD; one that sets a limit joins by its row.
"""

import json
from typing import Any

import pytest

from serving.contracts import encode
from serving.contracts.rules import BY_TOOL, RULES, with_rules
from serving.engines.protocol import Engine
from tests.fakes import STOCK, FakeEngine
from tools import ControlSession, ToolResult, describe_tools, discover, langchain_tool

_GOOD = {int: 8, float: 0.1, bool: True}
ARGS: dict[str, dict[str, Any]] = {
    **{tool: {knob.argument: _GOOD[knob.kind]} for tool, knob in BY_TOOL.items()},
    "set_token_budget": {"max_tokens": 512, "follow_slack": True},
    "switch_policy": {"policy": "edf", "params": {"kappa": 10.0}},
    "switch_rule": {"rule": "balance", "on": True},
}
BAD: dict[str, list[dict[str, Any]]] = {
    **{
        tool: [{}, *({knob.argument: bad} for bad in (("x", -0.1, -1, 1e30) if knob.unit else "x"))]
        for tool, knob in BY_TOOL.items()
    },
    "set_token_budget": [{"max_tokens": 0, "follow_slack": True}, {"max_tokens": "x"}],
    "switch_policy": [{"policy": "nope"}, {"policy": "edf", "params": {"kappa": 9000.0}}],
    "switch_rule": [{"rule": "nope", "on": True}, {"rule": "pace"}, {"rule": "pace", "on": "x"}],
}
NAMES = sorted(discover())


def session(engine: Engine, dry_run: bool = False) -> ControlSession:
    return ControlSession(engine, "me", 10.0, dry_run)


def good(name: str) -> dict[str, Any]:
    return {**ARGS.get(name, {}), "reason": "test"}


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_can_be_switched_on_and_off_again(rule):
    engine = FakeEngine()
    before, tool, one = engine.limits, discover()["switch_rule"], session(engine)
    assert tool.call(one, {"rule": rule, "on": True, "reason": "test"}).accepted
    assert engine.limits == with_rules(before, [rule])
    assert tool.call(one, {"rule": rule, "on": False, "reason": "test"}).accepted
    assert engine.limits == before


def test_every_tool_has_examples_here():
    assert sorted(ARGS) == sorted(BAD) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_typed_and_the_epoch_advances_by_one(name):
    engine = FakeEngine(epoch=7)
    result = discover()[name].call(session(engine), good(name))
    assert isinstance(result, ToolResult)
    assert result.accepted, result.reason
    assert (result.epoch, engine.epoch) == (8, 8)
    assert result.before["epoch"] == 7
    assert result.after["epoch"] == 8
    changed = {key for key in result.after if result.after[key] != result.before[key]}
    assert changed > {"epoch"}
    assert engine.applied[-1].reason == "test"


@pytest.mark.parametrize(("name", "args"), [(n, a) for n in NAMES for a in BAD.get(n, [])])
def test_bounds_are_enforced_and_nothing_changes(name, args):
    engine = FakeEngine()
    result = discover()[name].call(session(engine), {**args, "reason": "test"})
    assert not result.accepted
    assert result.reason.startswith(f"{name}.")
    assert engine.applied == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoilt", [{"more": 1}, {"reason": ""}, {"reason": "x" * 201}])
def test_extra_arguments_and_missing_reasons_are_refused(name, spoilt):
    engine = FakeEngine()
    result = discover()[name].call(session(engine), {**good(name), **spoilt})
    assert not result.accepted
    assert next(iter(spoilt)) in result.reason
    assert engine.applied == []


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_changes_nothing(name):
    engine = FakeEngine(owner="other", lease_until_s=100.0)
    mine = session(engine)
    before = encode(engine.snapshot())
    result = discover()[name].call(mine, good(name))
    assert not result.accepted
    assert "other" in result.reason
    assert result.before == result.after
    assert encode(engine.snapshot()) == before
    engine.owner = ""  # the refused wish must not come back with the next change
    mine.change(prefill_share=0.2, reason="later")
    assert engine.policy == "fcfs"
    assert engine.limits.max_active_requests == 64
    assert engine.limits.token_budget == 2048


@pytest.mark.parametrize("name", NAMES)
def test_a_dead_engine_is_a_result(name):
    result = discover()[name].call(session(FakeEngine(down=True)), good(name))
    assert not result.accepted
    assert "unavailable" in result.reason


@pytest.mark.parametrize("name", NAMES)
def test_advise_mode_writes_nothing(name):
    engine = FakeEngine()
    result = discover()[name].call(session(engine, dry_run=True), good(name))
    assert not result.accepted
    assert result.reason == "advise mode: not applied"
    assert engine.applied == []


@pytest.mark.parametrize("name", NAMES)
def test_the_langchain_tool_says_the_same(name):
    tool = langchain_tool(discover()[name], session(FakeEngine()))
    assert ToolResult.model_validate_json(tool.invoke(good(name))).accepted
    refused = tool.invoke({**good(name), "more": 1})
    assert not ToolResult.model_validate_json(refused).accepted


@pytest.mark.parametrize(("off", "left"), [("balance", "serial"), ("serial", "balance")])
def test_switching_one_rule_off_leaves_the_other_on(off, left):
    engine = FakeEngine()
    mine, switch = session(engine), discover()["switch_rule"]
    for rule, on in ((off, True), (left, True), (off, False)):
        assert switch.call(mine, {"rule": rule, "on": on, "reason": "test"}).accepted
    assert engine.limits == with_rules(STOCK, [left])


def test_descriptions_are_json_and_name_every_argument():
    described = {tool["name"]: tool for tool in json.loads(json.dumps(describe_tools()))}
    assert sorted(described) == NAMES
    for name in NAMES:
        properties = described[name]["args"]["properties"]
        assert set(good(name)) <= set(properties)
        assert all("description" in p for p in properties.values())

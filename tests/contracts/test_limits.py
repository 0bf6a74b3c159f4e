"""Conformance of every knob: a field of `Limits` has a whole row, and what is derived agrees."""

from dataclasses import fields, replace
from typing import Any, TypeVar, get_args

import pytest

from hmas_agents.agents.arbiter import PRECEDENCE
from hmas_agents.agents.calls import call_for, step_of, stepped
from serving.contracts import Envelope, Limits, Snapshot, decode, encode, rules
from serving.contracts.limits import Knob, Quantity
from serving.contracts.rules import BY_TOOL, COUNTERS, KNOBS, OFF, RULES
from serving.engines.simulated import SimulatedEngine
from serving.hook.lease import clamp
from serving.plugin.metrics import TenantCollector
from tests.agents.states import short_state
from tests.fakes import FakeEngine
from tests.serving.samples import profile
from tests.serving.simulation import SETTINGS
from tests.source_tree import ROOT
from tools import discover

ENVELOPE = Envelope(64, 2048, 4096, 100, 16, sheddable=("batch",))
NAMES = [each.name for each in fields(Limits)]
WITH_TOOL = sorted(BY_TOOL)


T = TypeVar("T", Limits, Envelope)


def changed(message: T, **values: Any) -> T:
    return replace(message, **values)


def highest(knob: Knob) -> float:
    return getattr(ENVELOPE, knob.high) if isinstance(knob.high, str) else knob.high


@pytest.mark.parametrize("name", NAMES)
def test_every_field_has_a_whole_row(name):
    knob = KNOBS[name]
    assert knob.text.endswith(".")
    assert knob.text[0].isupper()
    assert bool(knob.unit) == (knob.kind in {int, float}), "numbers have a unit"
    assert not knob.counts or knob.rule, "counters tell what a rule did"
    assert not knob.rule or knob.counts, "a rule counts what it did"
    assert set(knob.also) < set(KNOBS)
    assert not knob.needs or hasattr(ENVELOPE, knob.needs)
    if knob.tool:
        assert knob.concern in PRECEDENCE
        assert knob.down
        assert knob.up
        assert knob.pushes in get_args(Quantity)
        assert min(knob.hold_down_s, knob.hold_up_s) >= 0.0 < max(knob.hold_down_s, knob.hold_up_s)


def test_names_are_told_once():
    assert list(KNOBS) == list(OFF) == NAMES
    steps = [name for knob in BY_TOOL.values() for name in (knob.down, knob.up)]
    assert len(set(steps)) == len(steps)
    assert len(COUNTERS) == sum(len(k.counts) for k in KNOBS.values()) + 2, "two for guarantees"


@pytest.mark.parametrize("name", [name for name in NAMES if KNOBS[name].unit])
def test_decisions_are_clamped_to_the_bounds_of_the_row(name):
    knob, limits = KNOBS[name], Limits(64, 2048)
    for asked, taken in ((-1e9, knob.low), (1e9, highest(knob))):
        found, clamped = clamp(changed(limits, **{name: knob.kind(asked)}), ENVELOPE)
        assert getattr(found, name) == clamped[name] == taken
        assert type(getattr(found, name)) is knob.kind
    if knob.needs:
        without = changed(ENVELOPE, **{knob.needs: ()})
        found, _ = clamp(changed(limits, **{name: 1.0}), without)
        assert getattr(found, name) == knob.low


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_is_within_the_bounds_and_off_by_default(rule):
    on = changed(Limits(64, 2048), **RULES[rule])
    assert clamp(on, ENVELOPE) == (on, {})
    assert all(on is not OFF[name] for name, on in RULES[rule].items())
    assert rules.rules_in_force(on) == [rule]


@pytest.mark.parametrize("tool", WITH_TOOL)
def test_a_tool_has_the_bounds_and_the_text_of_its_row(tool):
    knob, made = BY_TOOL[tool], discover()[tool]
    schema = made.args.model_json_schema()["properties"]
    assert set(schema) == {knob.argument, *knob.also, "reason"}
    assert knob.text in {made.description, schema[knob.argument]["description"]}
    if knob.unit:
        assert schema[knob.argument]["minimum"] == knob.low
        most = 1_000_000 if isinstance(knob.high, str) else knob.tool_high or knob.high
        assert schema[knob.argument]["maximum"] == most


@pytest.mark.parametrize("tool", WITH_TOOL)
def test_the_steps_of_a_knob_are_calls_of_its_tool_within_its_bounds(tool):
    knob, made = BY_TOOL[tool], discover()[tool]
    middle = {int: 32, float: 0.3, bool: False}[knob.kind]
    state = short_state(limits=changed(Limits(32, 32), **{knob.name: middle}))
    for way in (-1, 1):
        call = call_for(knob.name, stepped(knob.name, way, state), state, "test")
        made.args.model_validate(call["args"])
        assert step_of(call, state.limits) in {way, 0}


def test_switch_rule_offers_every_rule():
    schema = discover()["switch_rule"].args.model_json_schema()["properties"]["rule"]
    assert schema["enum"] == list(RULES)
    for on in RULES.values():
        assert all(KNOBS[name].text in schema["description"] for name in on)


def test_an_engine_counts_what_the_rows_name_and_metrics_label_it_so():
    totals = encode(SimulatedEngine(profile(1000), SETTINGS).scheduler.hmas_totals())
    assert totals["rules"] == dict.fromkeys(COUNTERS, 0)
    collector = TenantCollector()
    collector.update([totals])
    (family,) = (each for each in collector.collect() if each.name == "hmas_rule")
    assert {sample.labels["rule"] for sample in family.samples} == set(COUNTERS)
    assert all(text in family.documentation for text in COUNTERS.values())


def test_a_snapshot_of_another_version_is_still_read():
    old = encode(FakeEngine().snapshot()) | {"rules": {"demoted": 3, "gone": 1}}
    del old["limits"]["pace_decodes"]
    read = decode(Snapshot, old)
    assert (read.rules["demoted"], read.limits.pace_decodes) == (3, False)


def test_the_docs_have_the_table_of_the_source():
    page = (ROOT / "docs" / "how" / "execution.md").read_text()
    assert rules.table() in page, "write it anew: python -m serving.contracts.rules"

"""The short tick: who is asked, what is refused and told, and what a late one skips."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from graphs import control_loop
from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.records import DecisionRecord
from tests.agents.model_server import completion, serving
from tests.fakes import FakeEngine

ALONE = {"control.mode": "act", "control.ttl_s": 1000.0, "model.enabled": False,
         "twin.enabled": False}  # fmt: skip


def loop_on(engine: FakeEngine, **overrides: Any) -> tuple[ControlLoop, list[DecisionRecord]]:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    records = list[DecisionRecord]()
    loop = ControlLoop(engine, load_config(None, ALONE | dotted), None, on_decision=records.append)
    return loop, records


def tick(loop: ControlLoop, engine: FakeEngine, now_s: float) -> None:
    engine.now_s = now_s
    loop.short_tick()


def hold_to_shares(engine: FakeEngine) -> None:
    """Put the buckets in force, which an agent will not leave so, because nothing waits."""
    engine.limits = replace(engine.limits, tenant_buckets=True)


def test_an_agent_that_is_not_enabled_is_not_asked():
    for enabled, held in ((("tenant_shares",), False), (("batching", "prefill"), True)):
        engine = FakeEngine()
        loop, _ = loop_on(engine, agents__enabled=enabled)
        tick(loop, engine, 2.0)
        hold_to_shares(engine)
        tick(loop, engine, 4.0)
        assert engine.limits.tenant_buckets is held


def test_what_the_arbiter_refuses_is_recorded_once_with_its_reason():
    engine = FakeEngine()
    loop, records = loop_on(engine, agents__max_calls_per_minute=1)
    tick(loop, engine, 2.0)
    engine.limits = replace(engine.limits, prefill_share=0.35)  # nothing waits: not needed
    tick(loop, engine, 4.0)  # to say so takes the minute's one call
    for number in range(1, 6):
        hold_to_shares(engine)
        tick(loop, engine, 4.0 + 2.0 * number)
    assert engine.limits.tenant_buckets is True
    allowed, record = [r for r in records if r.trigger == "tick"]
    assert [(c.tool, c.accepted) for c in allowed.tool_calls] == [("set_prefill_share", True)]
    (call,) = record.tool_calls
    assert (call.tool, call.accepted) == ("set_tenant_buckets", False)
    assert call.reason.startswith("refused by the arbiter (too_many): 1 calls in the last 60 s")
    assert record.epoch_before == record.epoch_after


def test_a_refusal_stands_beside_what_was_done():
    engine = FakeEngine()
    loop, records = loop_on(engine, agents__max_calls_per_minute=1)
    tick(loop, engine, 2.0)
    hold_to_shares(engine)
    engine.limits = replace(engine.limits, prefill_share=0.35)  # nothing waits: not needed
    tick(loop, engine, 4.0)
    assert [(c.tool, c.accepted) for c in records[-1].tool_calls] == [
        ("set_tenant_buckets", True), ("set_prefill_share", False),
    ]  # fmt: skip
    assert records[-1].chosen.keys() == {"policy", "set_tenant_buckets"}


def test_a_quiet_tick_records_nothing():
    engine = FakeEngine()
    loop, records = loop_on(engine)
    for number in range(1, 40):
        tick(loop, engine, 2.0 * number)
    assert [record.trigger for record in records] == ["start"]


def test_a_model_that_hangs_delays_no_tick_and_changes_nothing():
    engine = FakeEngine()
    with serving(None) as model:
        loop, records = loop_on(
            engine, agents__model__replaces="tenant_shares", agents__model__base_url=model.url
        )
        tick(loop, engine, 2.0)
        hold_to_shares(engine)
        tick(loop, engine, 4.0)
        assert engine.limits.tenant_buckets is False, "the rule agent speaks in its place"
        assert len(records) == 2
        model.released.set()


def test_a_models_choice_is_executed_by_the_same_tool():
    engine = FakeEngine()
    with serving(completion('{"choice": "hold_to_shares"}')) as model:
        loop, records = loop_on(
            engine, agents__model__replaces="tenant_shares", agents__model__base_url=model.url,
            agents__model__fresh_s=1000.0,
        )  # fmt: skip
        for number in range(1, 4):
            tick(loop, engine, 2.0 * number)
            wait_for_question()
    assert engine.limits.tenant_buckets is True
    assert records[-1].tool_calls[0].args["reason"] == "chosen by the model"


def wait_for_question() -> None:
    for thread in threading.enumerate():
        if thread.name == "hmas-rule-model":
            thread.join(10)


class Time:
    """A clock that tests move; also an event that is never set before `end_s`."""

    def __init__(self, end_s: float) -> None:
        self.now_s, self._end_s = 0.0, end_s

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s

    def is_set(self) -> bool:
        return self.now_s >= self._end_s

    def wait(self, seconds: float) -> None:
        self.now_s += max(0.0, seconds)


@pytest.mark.parametrize(("cost_s", "began_s"), [
    (0.0, [0, 2, 4, 6, 8, 10]), (1.5, [0, 2, 4, 6, 8, 10]), (2.5, [0, 4, 8]), (7.0, [0, 8]),
])  # fmt: skip
def test_a_slow_tick_skips_those_that_it_missed_and_queues_none(monkeypatch, cost_s, began_s):
    clock, began = Time(end_s=11.0), list[float]()
    times = SimpleNamespace(monotonic=clock.monotonic, perf_counter=clock.perf_counter)
    monkeypatch.setattr(control_loop, "time", times)
    engine = FakeEngine()
    loop, _ = loop_on(engine, control__long_tick_s=1000.0)

    def slow() -> None:
        began.append(clock.now_s)
        clock.now_s += cost_s

    monkeypatch.setattr(loop, "short_tick", slow)
    with loop:
        loop.run_forever(clock)  # type: ignore[arg-type]
    assert began == began_s

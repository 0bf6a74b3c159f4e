"""A controller that may not act: it waits, says for whom, and takes over when it may."""

from collections.abc import Callable
from pathlib import Path

import pytest

from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.ledger import LedgerReader
from hmas_agents.ledger.writer import HALF_DONE
from hmas_agents.records import DecisionRecord
from serving.contracts import PERSON, PINNED_S, Decision
from serving.contracts.rules import rules_in_force
from tests.agents.scripted import Scripted
from tests.fakes import STOCK, FakeEngine
from tests.graphs.fake_loop import serve
from tests.graphs.test_simulated_loop import PROFILE, workload

TTL_S = 15.0
QUIET = {
    "model.enabled": False, "twin.enabled": False, "control.mode": "act", "control.ttl_s": TTL_S,
}  # fmt: skip
ALICE = f"{PERSON}alice@desk"


class Standing:
    """A controller that stands by, with what it recorded and said."""

    def __init__(self, engine: FakeEngine, name: str, ledger: Path | None = None) -> None:
        self.engine, self.records, self.said = engine, list[DecisionRecord](), list[str]()
        self.loop = ControlLoop(
            engine, load_config(None, QUIET), ledger, controller_id=name, stands_by=True,
            on_decision=self.records.append, on_notice=self.said.append,
        )  # fmt: skip

    def tick(self, *times_s: float) -> None:
        for now_s in times_s:
            self.engine.now_s = now_s
            self.loop.tick()


def apply(engine: FakeEngine, owner: str, policy: str, ttl_s: float = TTL_S) -> None:
    decision = Decision(owner, engine.snapshot().epoch + 1, ttl_s, policy, {}, STOCK)
    assert engine.apply(decision).accepted


def test_the_second_waits_for_the_lease_and_goes_on_where_the_first_ended():
    engine = FakeEngine()
    apply(engine, "first", "srpt")
    second = Standing(engine, "second")
    second.tick(1.0, 3.0, 5.0)
    assert second.said == ["controller 'first' owns this engine for another 14.0 s: standing by"]
    assert (engine.owner, second.records) == ("first", [])
    second.tick(15.5)
    assert (engine.owner, engine.policy) == ("second", "srpt")
    assert rules_in_force(engine.limits) == ["slack", "serial", "triage"]
    assert second.said[1:] == ["the engine is free: acting from srpt; nothing to recover"]
    assert [r.trigger for r in second.records] == ["start"]


def test_what_is_not_allowed_is_not_gone_on_with():
    engine = FakeEngine()
    apply(engine, "first", "mlfq")
    second = Standing(engine, "second")
    second.tick(1.0, 20.0)
    assert (engine.owner, engine.policy, engine.params) == ("second", "edf", {"kappa": 3.0})


def test_one_that_lost_its_lease_to_a_standby_stands_by_itself():
    engine = FakeEngine()
    first, second = Standing(engine, "first"), Standing(engine, "second")
    first.tick(2.0)
    second.tick(3.0, 18.0)  # the first was silent for longer than its lease
    assert engine.owner == "second"
    first.tick(19.0)
    assert engine.owner == "second"
    assert first.said == ["controller 'second' owns this engine for another 14.0 s: standing by"]


def test_a_person_takes_the_engine_and_gives_it_back():
    engine = FakeEngine()
    controller = Standing(engine, "me")
    controller.tick(2.0)
    engine.now_s = 3.0
    apply(engine, ALICE, "mlfq", PINNED_S)
    serve(engine, 200, at_s=3.0)
    controller.tick(*range(4, 104, 2))
    assert (engine.owner, engine.policy) == (ALICE, "mlfq")
    assert controller.said == [
        "alice@desk holds this engine until it is released (`hmas release` ends that): standing by"
    ]
    assert [r.trigger for r in controller.records] == ["start"], "nothing is decided meanwhile"
    engine.release(ALICE)
    controller.tick(106.0)
    assert (engine.owner, engine.policy, engine.params) == ("me", "edf", {"kappa": 3.0})
    assert [r.trigger for r in controller.records][:2] == ["start", "start"]


def test_what_happens_under_a_person_is_not_held_against_the_switch_before():
    engine = FakeEngine()
    twin = Scripted(srpt=0.5, edf=0.9)
    config = load_config(None, QUIET | {"twin.enabled": True, "control.start_policy": "srpt",
        "control.ttl_s": 1000.0})  # fmt: skip
    records = list[DecisionRecord]()
    loop = ControlLoop(
        engine, config, None, stands_by=True, on_decision=records.append, on_notice=lambda _: None,
        forecaster=twin,
    )  # fmt: skip

    def at(now_s: float, tick: Callable[[], None]) -> None:
        engine.now_s = now_s
        tick()

    at(2.0, loop.short_tick)
    serve(engine, 116, at_s=2.0)
    at(60.0, loop.long_tick)
    assert (engine.policy, records[-1].predicted) == ("edf", 0.9)
    serve(engine, 40, at_s=61.0)
    at(82.0, loop.short_tick)
    engine.stop("alice@desk")
    at(84.0, loop.short_tick)
    serve(engine, 60, at_s=85.0, met=False)
    at(118.0, loop.short_tick)
    engine.start("alice@desk")
    at(120.0, loop.short_tick)
    at(180.0, loop.long_tick)
    assert records[-1].trigger == "tick", "the misses were the default's, there is no way back"
    assert records[-1].twin["error"] == pytest.approx(0.1)


def test_the_controller_stays_out_of_a_stopped_engine_until_it_is_started():
    from serving.contracts.settings import EngineSettings
    from serving.engines.simulated import SimulatedEngine

    engine, said = SimulatedEngine(PROFILE, EngineSettings()), list[str]()
    loop = ControlLoop(
        engine, load_config(None, QUIET), None, stands_by=True, on_notice=said.append
    )
    steps: list[tuple[float, str]] = []

    def person() -> None:
        if engine.now() == pytest.approx(10.0, abs=1.0):
            engine.stop("alice@desk", "odd latencies")
        if engine.now() == pytest.approx(30.0, abs=1.0):
            engine.start("alice@desk")

    def on_step(_: object) -> None:
        steps.append((engine.now(), engine.snapshot().policy))

    loop.short_tick()
    outcomes = engine.run(
        workload(200, 4.0), [(10.0, person), (2.0, loop.tick)], 45.0, on_step=on_step
    )
    loop.close()
    stopped = [policy for at_s, policy in steps if 11.0 < at_s < 30.0]
    assert set(stopped) == {"fcfs"}
    assert {policy for at_s, policy in steps if at_s < 10.0} == {"edf"}
    assert steps[-1][1] == "edf"
    assert said[0].startswith("stopped by alice@desk ")
    assert said[0].endswith("(odd latencies); `hmas start` ends that: standing by")
    assert said[1:] == ["the engine is free: acting from edf:kappa=3; nothing to recover"]
    assert {o.policy for o in outcomes if o.finish == "stop"} == {"edf", "fcfs"}


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "l.sqlite"


def half_done(ledger: Path) -> list[int]:
    with LedgerReader(ledger) as reader:
        return [
            row.id for row in reader.list_decisions(faults=True)
            if row.record.faults[-1].startswith(HALF_DONE)
        ]  # fmt: skip


def test_what_a_dead_controller_left_half_done_is_marked(ledger):
    engine = FakeEngine()
    dead = Standing(engine, "dead", ledger)
    dead.tick(2.0)
    serve(engine, 80, at_s=2.0)
    dead.tick(44.0)
    assert [r.horizon for r in dead.records] == ["short", "long"]
    apply(engine, "dead", "srpt", 100.0)  # it died, and its lease lasts
    heir = Standing(engine, "heir", ledger)
    heir.tick(50.0)
    assert half_done(ledger) == [], "while the lease lasts nobody knows"
    heir.tick(145.0)
    assert half_done(ledger) == [1, 2]
    assert heir.said[1:] == [
        "the engine is free: acting from srpt; left half done, and marked so in the ledger: "
        "decision 1, 2"
    ]
    heir.loop.close()
    third = Standing(engine, "third", ledger)
    third.tick(150.0)
    assert third.said == [], "who ends well leaves nothing half done, and nothing is marked twice"
    assert half_done(ledger) == [1, 2]
    third.loop.close()


def test_advice_marks_nothing(ledger):
    engine = FakeEngine()
    Standing(engine, "dead", ledger).tick(2.0)
    config = load_config(None, QUIET | {"control.mode": "advise"})
    loop = ControlLoop(engine, config, ledger)
    loop.short_tick()
    loop.close()
    assert half_done(ledger) == []

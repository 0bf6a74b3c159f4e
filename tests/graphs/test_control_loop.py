"""The loop: what starts, who owns, what is recorded, what follows a decision."""

import threading
from dataclasses import replace

import pytest

from graphs.control_loop import ControllerConflict, ControlLoop
from hmas_agents.ledger import LedgerReader
from hmas_agents.records import DecisionRecord
from serving.contracts import Ack, encode
from serving.engines.protocol import EngineUnavailable
from tests.agents.model_server import completion, proposals, serving
from tests.fakes import STOCK, FakeEngine
from tests.graphs.fake_loop import Loop, config, decisions, serve


def test_the_first_tick_puts_the_configuration_in_force_through_the_tools():
    engine = FakeEngine()
    loop = Loop(engine, config())
    loop.short(2.0)
    assert (engine.policy, engine.limits.follow_slack, engine.owner) == ("edf", True, "hmas")
    assert engine.params == {"kappa": 3.0}
    assert engine.limits.max_partial_prefills == 1
    (record,) = loop.records
    assert (record.trigger, record.horizon) == ("start", "short")
    assert [call.tool for call in record.tool_calls] == ["switch_policy", *["switch_rule"] * 3]
    assert [c.args.get("rule") for c in record.tool_calls[1:]] == ["slack", "serial", "triage"]
    assert [call.ack["epoch"] for call in record.tool_calls] == [1, 2, 3, 4]
    assert record.tool_calls[1].before["follow_slack"] is False
    assert record.tool_calls[1].after["follow_slack"] is True
    assert record.snapshot_before["epoch"] == 0
    assert record.snapshot_after == encode(engine.snapshot())
    assert (record.epoch_before, record.epoch_after) == (0, 4)


def test_quiet_ticks_renew_the_lease_and_record_nothing():
    engine = FakeEngine()
    loop = Loop(engine, config(control__ttl_s=15.0))
    for now_s in range(2, 62, 2):
        loop.short(float(now_s))
    assert len(loop.records) == 1
    assert engine.epoch == 4
    assert engine.lease_until_s == 60.0 + 15.0


def test_a_rule_agent_changes_a_limit_and_it_is_recorded():
    engine = FakeEngine()
    loop = Loop(engine, config())
    loop.short(2.0)
    engine.limits = replace(engine.limits, tenant_buckets=True)  # nothing waits: not needed
    loop.short(4.0)
    assert engine.limits.tenant_buckets is False
    assert loop.records[-1].trigger == "tick"
    assert loop.records[-1].tool_calls[0].tool == "set_tenant_buckets"
    assert loop.records[-1].chosen["policy"] == "edf"


def test_advise_mode_records_what_it_would_do_and_writes_nothing():
    engine = FakeEngine()
    loop = Loop(engine, config(control__mode="advise"))
    loop.short(2.0)
    loop.short(4.0)
    assert engine.applied == []
    (record,) = loop.records
    assert record.chosen["policy"] == "edf"
    assert record.chosen["switch_policy"]["params"] == {"kappa": 3.0}
    assert {call.reason for call in record.tool_calls} == {"advise mode: not applied"}


def test_advise_mode_may_watch_an_engine_that_others_control():
    engine = FakeEngine(owner="other", lease_until_s=100.0)
    loop = Loop(engine, config(control__mode="advise"))
    loop.short(2.0)
    loop.loop.close()
    assert engine.owner == "other"


def test_a_second_controller_is_refused_by_name():
    engine = FakeEngine(owner="first", lease_until_s=100.0)
    loop = Loop(engine, config())
    with pytest.raises(ControllerConflict, match="'first' owns this engine for another 98"):
        loop.short(2.0)
    assert engine.applied == []


def test_losing_the_engine_to_another_controller_is_a_conflict():
    engine = FakeEngine()
    loop = Loop(engine, config())
    loop.short(2.0)
    engine.owner, engine.lease_until_s = "thief", 100.0
    with pytest.raises(ControllerConflict, match="thief"):
        loop.short(4.0)


def test_a_lease_that_ran_out_is_taken_back_whole():
    engine = FakeEngine()
    loop = Loop(engine, config(control__ttl_s=15.0))
    loop.short(2.0)
    loop.short(60.0)
    assert (engine.policy, engine.params, engine.owner) == ("edf", {"kappa": 3.0}, "hmas")
    assert (engine.limits.follow_slack, engine.limits.max_partial_prefills) == (True, 1)


def test_an_engine_that_was_down_loses_nothing(tmp_path):
    engine = FakeEngine()
    loop = Loop(engine, config(), tmp_path / "l.sqlite")
    loop.short(2.0)
    serve(engine, 5, at_s=3.0)
    engine.down = True
    with pytest.raises(EngineUnavailable):
        loop.short(4.0)
    with pytest.raises(EngineUnavailable):
        loop.long(4.0)
    engine.down = False
    loop.short(6.0)
    assert loop.long(8.0).state["arrivals"] == 5
    loop.loop.close()


def test_closing_returns_the_engine_to_its_default_and_twice_is_fine():
    engine = FakeEngine()
    loop = Loop(engine, config())
    loop.short(2.0)
    loop.loop.close()
    loop.loop.close()
    assert (engine.owner, engine.policy, engine.limits) == ("", "fcfs", STOCK)


def test_a_start_that_fails_is_tried_again(monkeypatch):
    engine = FakeEngine()
    loop = Loop(engine, config())
    with monkeypatch.context() as refusing:
        refusing.setattr(engine, "apply", lambda decision: Ack(False, 0, "not now"))
        loop.short(2.0)
    loop.short(4.0)
    assert (engine.policy, engine.params) == ("edf", {"kappa": 3.0})
    assert (engine.limits.follow_slack, engine.limits.max_partial_prefills) == (True, 1)
    assert [r.trigger for r in loop.records] == ["start", "start"]


def test_with_the_twin_disabled_the_rule_table_switches_when_calm():
    engine = FakeEngine()
    loop = Loop(engine, config(control__start_policy="srpt"))
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert engine.policy == "edf"
    assert record.chosen == {
        "policy": "edf", "params": {"kappa": 3.0}, "limits": {}, "source": "rules",
        "predicted": None, "applied": True,
        "ack": {"accepted": True, "epoch": 5, "reason": "", "clamped": {}},
    }  # fmt: skip
    assert [p.source for p in record.proposals] == ["rules", "incumbent"]


FAULTS = [
    (None, "model_timeout"),
    (completion("garbage"), "reply_invalid"),
    (completion(proposals("lottery")), "unknown_policy"),
    (500, "model_unreachable"),
]


@pytest.mark.parametrize(("answer", "code"), FAULTS)
def test_model_faults_are_in_the_ledger_and_the_loop_goes_on_by_rules(tmp_path, answer, code):
    engine, path = FakeEngine(), tmp_path / "l.sqlite"
    with serving(answer) as model:
        limit_s = 0.2 if answer is None else 60.0
        asked = {"model__base_url": model.url, "model__timeout_s": limit_s}
        faulty = config(control__start_policy="srpt", model__enabled=True, **asked)
        loop = Loop(engine, faulty, path)
        loop.short(2.0)
        serve(engine, 116, at_s=2.0)
        loop.long(60.0)
        loop.loop.close()
    (stored,) = [d for d in decisions(path) if d.horizon == "long"]
    assert [fault.partition(":")[0] for fault in stored.faults] == [code, code]
    assert stored.chosen["source"] == "rules"
    assert stored.chosen["applied"] is True
    assert stored.prompt_name == "policy"
    assert len(stored.prompt_sha256) == 64


def test_outcomes_reach_the_ledger_once(tmp_path):
    engine, path = FakeEngine(), tmp_path / "l.sqlite"
    loop = Loop(engine, config(), path)
    loop.short(2.0)
    serve(engine, 7, at_s=3.0)
    loop.short(4.0)
    loop.short(6.0)
    loop.loop.close()
    reader = LedgerReader(path)
    assert len(list(reader.outcomes(reader.list_runs()[-1].id))) == 7


class Running(FakeEngine):
    """Its clock goes on."""

    def now(self) -> float:
        self.now_s += 1.0
        return self.now_s


def test_run_forever_ticks_on_both_horizons_until_stopped():
    engine, stop = Running(), threading.Event()
    seen = list[DecisionRecord]()

    def on_decision(record: DecisionRecord) -> None:
        seen.append(record)
        if record.horizon == "long":
            stop.set()

    quick = config(control__short_tick_s=0.01, control__long_tick_s=5.0)
    with ControlLoop(engine, quick, None, on_decision=on_decision) as loop:
        loop.run_forever(stop)
    assert [r.trigger for r in seen[:2]] == ["start", "tick"]
    assert engine.owner == ""


def test_run_forever_survives_an_engine_that_is_away(caplog, monkeypatch):
    engine, stop = FakeEngine(), threading.Event()
    tries = []

    def snapshot():
        tries.append(1)
        engine.down = len(tries) < 5
        return FakeEngine.snapshot(engine)

    monkeypatch.setattr(engine, "snapshot", snapshot)
    quick = config(control__short_tick_s=0.01)
    with ControlLoop(engine, quick, None, on_decision=lambda _: stop.set()) as loop:
        loop.run_forever(stop)
    assert [r.message for r in caplog.records if "does not answer" in r.message] == [
        "the engine does not answer, trying on: fake engine is down"
    ]
    assert any("answers again" in r.message for r in caplog.records)


def test_run_forever_reports_a_conflict():
    engine = FakeEngine(owner="first", lease_until_s=100.0)
    with ControlLoop(engine, config(), None) as loop, pytest.raises(ControllerConflict):
        loop.run_forever(threading.Event())



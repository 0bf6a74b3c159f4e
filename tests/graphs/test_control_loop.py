"""The loop: what starts, who owns, what is recorded, what follows a decision."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from graphs.control_loop import ControllerConflict, ControlLoop
from hmas_agents.config import Config, TwinConfig, load_config
from hmas_agents.ledger import Ledger, LedgerReader
from hmas_agents.records import DecisionRecord
from hmas_agents.situation import decode_situation
from hmas_agents.twin import Twin
from serving.contracts import SLO, Ack, Arrival, BatchState, KVState, Outcome, encode
from serving.contracts.rules import with_rules
from serving.engines.protocol import EngineUnavailable
from tests.agents.model_server import completion, proposals, serving
from tests.agents.scripted import Scripted
from tests.fakes import STOCK, FakeEngine
from tests.hmas_agents.samples import record as sample_record

# Tests jump in time, so the lease is long except where it is what is tested.
ALONE = {"model.enabled": False, "twin.enabled": False, "control.ttl_s": 1000.0}


def config(**overrides: Any) -> Config:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, {"control.mode": "act", **ALONE, **dotted})


class Loop:
    """A loop on a fake engine, with its records at hand."""

    def __init__(self, engine: FakeEngine, settings: Config, ledger: Path | None = None) -> None:
        self.engine, self.records = engine, list[DecisionRecord]()
        self.loop = ControlLoop(engine, settings, ledger, on_decision=self.records.append)

    def use_twin(self, twin: Any) -> None:
        self.loop._parts.twin = twin

    def short(self, now_s: float) -> None:
        self.engine.now_s = now_s
        self.loop.short_tick()

    def long(self, now_s: float) -> DecisionRecord:
        self.engine.now_s = now_s
        self.loop.long_tick()
        return self.records[-1]


def serve(engine: FakeEngine, count: int, at_s: float, met: bool = True) -> None:
    """`count` requests from `at_s` on, two a second, each served in a second."""
    slo = SLO(ttft_ms=500, tpot_ms=30)
    for i in range(count):
        seq, name = len(engine.events), f"q{len(engine.events)}"
        arrival_s = at_s + i * 0.5
        engine.events.append(Arrival(seq, name, arrival_s, "a", "interactive", slo, 100, 50))
        engine.events.append(
            Outcome(
                seq + 1, name, arrival_s, arrival_s + 1.0, "a", "interactive", slo, 100, 20, 0.0,
                0.1 if met else 3.0, 0.01, 1.0, met, "" if met else "ttft_queue", "stop",
                engine.policy, engine.epoch,
            )
        )


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
    engine.kv, engine.batch = KVState(1000, 990, 1100, preemptions=3), BatchState(running=9)
    loop.short(4.0)
    assert engine.limits.choose_victims is True
    assert loop.records[-1].trigger == "tick"
    assert loop.records[-1].tool_calls[0].tool == "set_victim_choice"
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
    loop = Loop(engine, config(control__start_policy="slide"))
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert engine.policy == "edf"
    assert record.chosen == {
        "policy": "edf", "params": {"kappa": 3.0}, "source": "rules", "predicted": None,
        "applied": True, "ack": {"accepted": True, "epoch": 5, "reason": "", "clamped": {}},
    }  # fmt: skip
    assert [p.source for p in record.proposals] == ["rules", "incumbent"]


def with_twin(
    engine: FakeEngine, twin: Scripted, ledger: Path | None = None, **more: Any
) -> Loop:
    loop = Loop(engine, config(**more), ledger)
    loop.use_twin(Twin(TwinConfig(draws=2), forecaster=twin))
    return loop


def test_a_switch_needs_a_predicted_gain_and_is_followed_up(tmp_path):
    engine, path = FakeEngine(), tmp_path / "l.sqlite"
    twin = Scripted(slide=0.5, edf=0.9)
    loop = with_twin(engine, twin, path, control__start_policy="slide")
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert (engine.policy, record.predicted) == ("edf", 0.9)
    assert (record.predicted_low, record.predicted_high) == (0.8, 1.0)
    assert twin.asked == [("slide", 0), ("edf", 0), ("slide", 1), ("edf", 1)]
    assert record.twin["futures"] == 4
    serve(engine, 40, at_s=70.0)
    loop.short(90.0)
    loop.loop.close()
    (stored,) = [d for d in decisions(path) if d.horizon == "long"]
    assert (stored.predicted, stored.realised, stored.realised_requests) == (0.9, 1.0, 41)
    kept = decode_situation(stored.situation)
    assert len(kept.requests) == 116
    assert kept.snapshot.policy == "slide"


def test_advice_is_of_what_acting_would_bring_with_its_rules_and_writes_nothing():
    engine, twin = FakeEngine(), Scripted(fcfs=0.5, edf=0.9, density=0.6, slide=0.6)
    allowed = ("fcfs", "edf", "density", "slide")
    loop = with_twin(engine, twin, control__mode="advise", control__allow_policies=allowed)
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert (engine.policy, record.policy_before) == ("fcfs", "fcfs")
    assert (record.chosen["policy"], record.chosen["applied"]) == ("edf", False)
    assert record.predicted == 0.5  # of what stays in force
    assert twin.limits["fcfs"] is None
    assert twin.limits["edf"] == with_rules(engine.limits, ["slack", "serial", "triage"])


def test_past_errors_of_the_ledger_raise_what_a_switch_must_gain(tmp_path):
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path, config=Config())
    for _ in range(20):
        ledger.record_decision(
            sample_record(predicted=0.9, realised=0.5, realised_requests=100)
        )
    ledger.close()
    loop = ControlLoop(FakeEngine(), config(twin__enabled=True), path)
    twin = loop._parts.twin
    assert twin is not None
    assert twin.error == pytest.approx(0.4)
    loop.close()


def test_a_switch_that_disappoints_is_rolled_back_past_the_dwell_time():
    engine, twin = FakeEngine(), Scripted(slide=0.5, edf=0.9)
    loop = with_twin(engine, twin, control__start_policy="slide")
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    loop.long(60.0)
    serve(engine, 40, at_s=70.0, met=False)
    twin.answers = {"slide": 0.6, "edf": 0.5}
    record = loop.long(120.0)
    assert record.trigger == "rollback"
    assert (record.policy_before, engine.policy) == ("edf", "slide")
    assert "realised 0.02, predicted at least 0.80" in record.reason
    serve(engine, 40, at_s=130.0, met=False)
    assert loop.long(180.0).trigger == "tick"  # a rollback is not rolled back


def test_few_requests_predict_nothing_and_nothing_moves():
    engine, twin = FakeEngine(), Scripted(slide=0.1, edf=0.9)
    loop = with_twin(engine, twin, control__start_policy="slide")
    loop.short(2.0)
    serve(engine, 5, at_s=30.0)
    assert loop.long(60.0).reason == "no candidate has a prediction: stay"
    assert (engine.policy, twin.asked) == ("slide", [])


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
        faulty = config(control__start_policy="slide", model__enabled=True, **asked)
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


def test_a_valid_proposal_of_the_model_is_recorded_but_needs_the_twin():
    engine, allowed = FakeEngine(), ("edf", "sjf", "slide")
    with serving(completion(proposals("sjf"))) as model:
        asking = config(
            model__enabled=True, model__base_url=model.url,
            control__start_policy="slide", control__allow_policies=allowed,
        )  # fmt: skip
        loop = Loop(engine, asking)
        loop.short(2.0)
        serve(engine, 116, at_s=2.0)
        assert loop.long(60.0).chosen["policy"] == "edf"
        loop.use_twin(Twin(TwinConfig(), forecaster=Scripted(edf=0.5, sjf=0.8, slide=0.6)))
        loop.loop._parts.switched_at_s.clear()
        record = loop.long(120.0)
    assert record.chosen["policy"] == engine.policy == "sjf"
    assert [p.source for p in record.proposals] == ["model", "rules", "incumbent"]
    assert json.loads(record.raw_replies[0])["proposals"][0]["policy"] == "sjf"


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


def decisions(path: Path) -> list[DecisionRecord]:
    reader = LedgerReader(path)
    return [reader.get_decision(row.id).record for row in reader.list_decisions()]

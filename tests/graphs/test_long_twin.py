"""What does the long horizon do with what the twin says? With scripted answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphs.control_loop import ControlLoop
from hmas_agents.config import Config, TwinConfig
from hmas_agents.ledger import Ledger
from hmas_agents.situation import decode_situation
from hmas_agents.twin.twin import Twin
from serving.contracts.rules import with_rules
from tests.agents.model_server import completion, proposals, serving
from tests.agents.scripted import Scripted
from tests.fakes import FakeEngine
from tests.graphs.fake_loop import Loop, config, decisions, serve
from tests.hmas_agents.samples import record as sample_record


def with_twin(
    engine: FakeEngine, twin: Scripted, ledger: Path | None = None, **more: Any
) -> Loop:
    loop = Loop(engine, config(**more), ledger)
    loop.use_twin(Twin(TwinConfig(draws=4), forecaster=twin))
    return loop


def test_a_switch_needs_a_predicted_gain_and_is_followed_up(tmp_path):
    engine, path = FakeEngine(), tmp_path / "l.sqlite"
    twin = Scripted(srpt=0.5, edf=0.9)
    loop = with_twin(engine, twin, path, control__start_policy="srpt")
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert (engine.policy, record.predicted) == ("edf", 0.9)
    assert (record.predicted_low or 1.0) < 0.9 < (record.predicted_high or 0.0)
    assert record.twin["candidates"] > 100
    assert record.twin["forecasts"] == len(twin.asked)
    assert record.twin["spread"] > 0.0
    serve(engine, 40, at_s=70.0)
    loop.short(90.0)
    loop.loop.close()
    (stored,) = [d for d in decisions(path) if d.horizon == "long"]
    assert (stored.predicted, stored.realised, stored.realised_requests) == (0.9, 1.0, 41)
    kept = decode_situation(stored.situation)
    assert len(kept.requests) == 116
    assert kept.snapshot.policy == "srpt"


def test_advice_is_of_what_acting_would_bring_with_its_rules_and_writes_nothing():
    engine, twin = FakeEngine(), Scripted(fcfs=0.5, edf=0.9, density=0.6, srpt=0.6)
    allowed = ("fcfs", "edf", "density", "srpt")
    loop = with_twin(
        engine, twin, control__mode="advise", control__allow_policies=allowed, twin__candidates=0
    )
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    record = loop.long(60.0)
    assert (engine.policy, record.policy_before) == ("fcfs", "fcfs")
    assert (record.chosen["policy"], record.chosen["applied"]) == ("edf", False)
    assert record.predicted == 0.5  # of what stays in force
    assert twin.limits["fcfs"] == {}
    begins = replace(engine.limits, **twin.limits["edf"])
    assert begins == with_rules(engine.limits, ["slack", "serial", "triage"])


def test_past_errors_of_the_ledger_raise_what_a_switch_must_gain(tmp_path):
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path, config=Config())
    for _ in range(20):
        ledger.record_decision(
            sample_record(
                predicted=0.9, realised=0.5, realised_requests=100, twin={"spread": 0.05}
            )
        )
    ledger.close()
    loop = ControlLoop(FakeEngine(), config(twin__enabled=True), path)
    twin = loop._parts.twin
    assert twin is not None
    assert twin.calibration.error == pytest.approx(0.4)
    loop.close()


def test_a_switch_that_disappoints_is_rolled_back_past_the_dwell_time():
    engine, twin = FakeEngine(), Scripted(srpt=0.5, edf=0.9)
    loop = with_twin(engine, twin, control__start_policy="srpt")
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    loop.long(60.0)
    serve(engine, 40, at_s=70.0, met=False)
    twin.answers = {"srpt": 0.6, "edf": 0.5}
    record = loop.long(120.0)
    assert record.trigger == "rollback"
    assert (record.policy_before, engine.policy) == ("edf", "srpt")
    assert "realised 0.02, predicted at least 0.8" in record.reason
    serve(engine, 40, at_s=130.0, met=False)
    assert loop.long(180.0).trigger == "tick"  # a rollback is not rolled back


def test_few_requests_predict_nothing_and_nothing_moves():
    engine, twin = FakeEngine(), Scripted(srpt=0.1, edf=0.9)
    loop = with_twin(engine, twin, control__start_policy="srpt")
    loop.short(2.0)
    serve(engine, 5, at_s=30.0)
    assert loop.long(60.0).reason == "no candidate has a prediction: stay"
    assert (engine.policy, twin.asked) == ("srpt", [])


def test_what_control_starts_with_comes_back_without_a_gain():
    """A setting that was right for one moment goes when it no longer pays."""
    engine, twin = FakeEngine(), Scripted(slide=0.9, edf=0.5)
    allowed = ("edf", "slide")
    loop = with_twin(engine, twin, control__start_policy="edf", control__allow_policies=allowed)
    loop.short(2.0)
    serve(engine, 116, at_s=2.0)
    assert (loop.long(60.0).chosen["policy"], engine.policy) == ("slide", "slide")
    loop.loop._parts.switched_at_s.clear()  # past the dwell time
    serve(engine, 116, at_s=70.0)
    twin.answers = {"slide": [0.71, 0.7, 0.7, 0.72], "edf": [0.7, 0.7, 0.7, 0.716]}
    record = loop.long(130.0)
    assert (record.chosen["policy"], engine.policy) == ("edf", "edf")
    loop.loop._parts.switched_at_s.clear()
    assert loop.long(190.0).chosen["policy"] == "edf"  # and slide does not


def test_a_valid_proposal_of_the_model_is_recorded_but_needs_the_twin():
    engine, allowed = FakeEngine(), ("edf", "sjf", "srpt")
    with serving(completion(proposals("sjf"))) as model:
        asking = config(
            model__enabled=True, model__base_url=model.url,
            control__start_policy="srpt", control__allow_policies=allowed,
        )  # fmt: skip
        loop = Loop(engine, asking)
        loop.short(2.0)
        serve(engine, 116, at_s=2.0)
        assert loop.long(60.0).chosen["policy"] == "edf"
        loop.use_twin(Twin(TwinConfig(), forecaster=Scripted(edf=0.5, sjf=0.8, srpt=0.6)))
        loop.loop._parts.switched_at_s.clear()
        record = loop.long(120.0)
    assert record.chosen["policy"] == engine.policy == "sjf"
    sources = [p.source for p in record.proposals if p.source != "twin"]
    assert sources == ["model", "rules", "incumbent"]
    assert json.loads(record.raw_replies[0])["proposals"][0]["policy"] == "sjf"


def test_the_model_is_told_what_came_of_its_proposals_and_a_situation_keeps_it(tmp_path):
    engine, allowed, path = FakeEngine(), ("edf", "sjf", "srpt"), tmp_path / "l.sqlite"
    with serving(completion(proposals("sjf"))) as model:
        asking = {
            "model__enabled": True, "model__base_url": model.url,
            "control__start_policy": "srpt", "control__allow_policies": allowed,
        }  # fmt: skip
        loop = with_twin(engine, Scripted(edf=0.5, sjf=0.8, srpt=0.6), path, **asking)
        loop.short(2.0)
        serve(engine, 116, at_s=2.0)
        assert loop.long(60.0).summary.splitlines()[-1] == "Changes: none."
        serve(engine, 40, at_s=70.0)
        said = "Proposed before: sjf adopted, predicted +20.0, seen +40.0 points."
        record = loop.long(125.0)
        assert record.summary.splitlines()[-1] == said
        assert said in model.asked[-1]["messages"][1]["content"]
        loop.loop.close()
    kept = [decode_situation(d.situation).state for d in decisions(path) if d.horizon == "long"]
    assert [p.seen_gain for state in kept for p in state.proposed] == [pytest.approx(0.4)]

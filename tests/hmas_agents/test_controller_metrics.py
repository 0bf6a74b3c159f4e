"""The controller's metrics count what the graphs report, in boundedly many series."""

import math
import socket
import urllib.request
from dataclasses import replace

import pytest

from hmas_agents import controller_metrics as metrics
from hmas_agents.records import Proposal, ToolCall
from tests.hmas_agents.samples import record


@pytest.fixture
def rise():
    """How much a sample has risen since the test began (the registry is the process's)."""

    def value(name, labels):
        return metrics.REGISTRY.get_sample_value(name, labels) or 0.0

    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in metrics.REGISTRY.collect()
        for sample in family.samples
    }

    def risen(name, key="", label="", **labels):
        labels |= {key: label} if key else {}
        return value(name, labels) - before.get((name, *sorted(labels.items())), 0.0)

    return risen


def test_ticks_are_counted_by_horizon(rise):
    metrics.observe_tick(0.02, "short")
    metrics.observe_tick(0.03, "short")
    assert rise("hmas_controller_tick_seconds_count", "horizon", "short") == 2


def test_a_decision_counts_its_faults_predictions_and_switch(rise):
    faults = ["model_timeout: no reply", "model_timeout", "tenant-made text: x"]
    metrics.count_decision(record(faults=faults, proposals=[
        Proposal("model", "slide", predicted=0.8), Proposal("rules", "edf"),
    ]))  # fmt: skip
    assert rise("hmas_controller_policy_switches_total") == 1
    assert rise("hmas_controller_faults_total", "code", "model_timeout") == 2
    assert rise("hmas_controller_faults_total", "code", "other") == 1
    assert rise("hmas_controller_twin_predictions_total", "result", "made") == 1
    assert rise("hmas_controller_twin_predictions_total", "result", "none") == 1
    info = {
        sample.labels["policy"]: sample.value
        for family in metrics.REGISTRY.collect()
        if family.name == "hmas_controller_policy_info"
        for sample in family.samples
    }
    assert info.pop("slide") == 1
    assert set(info.values()) == {0}


def test_a_decision_that_wrote_nothing_is_no_switch(rise):
    metrics.count_decision(record(tool_calls=[]))
    assert rise("hmas_controller_policy_switches_total") == 0
    assert metrics.REGISTRY.get_sample_value("hmas_controller_policy_info", {"policy": "edf"}) == 1


def test_ticks_let_pass_are_counted(rise):
    metrics.count_skipped("long")
    metrics.count_skipped("short", 3)
    assert rise("hmas_controller_ticks_skipped_total", "horizon", "long") == 1
    assert rise("hmas_controller_ticks_skipped_total", "horizon", "short") == 3


def test_what_the_model_cost_is_counted(rise):
    metrics.count_decision(
        record(
            model_tokens=460, model_prompt_tokens=400, model_latency_s=3.0, model_step_share=0.02
        )
    )
    assert rise("hmas_controller_model_tokens_total", "kind", "prompt") == 400
    assert rise("hmas_controller_model_tokens_total", "kind", "completion") == 60
    assert rise("hmas_controller_model_seconds_sum") == pytest.approx(3.0)
    assert metrics.REGISTRY.get_sample_value("hmas_controller_model_step_share") == 0.02


def test_a_decision_without_the_model_costs_nothing(rise):
    metrics.count_decision(
        record(model_tokens=0, model_latency_s=0.0, faults=["model_skipped: 920 tokens spent"])
    )
    assert rise("hmas_controller_faults_total", "code", "model_skipped") == 1
    assert rise("hmas_controller_model_seconds_count") == 0
    assert rise("hmas_controller_model_tokens_total", "kind", "prompt") == 0
    assert metrics.REGISTRY.get_sample_value("hmas_controller_model_step_share") == 0.0


def test_the_twins_word_and_what_came_of_it(rise):
    metrics.count_decision(record(
        twin={"wall_s": 4.0, "error": 0.03}, predicted=0.9, predicted_low=0.8, predicted_high=None,
    ))  # fmt: skip
    metrics.observe_realised(0.85)
    value = metrics.REGISTRY.get_sample_value
    assert rise("hmas_controller_twin_seconds_sum") == pytest.approx(4.0)
    assert value("hmas_controller_twin_error") == 0.03
    assert value("hmas_controller_attainment_predicted", {"bound": "low"}) == 0.8
    assert value("hmas_controller_attainment_predicted", {"bound": "mean"}) == 0.9
    assert math.isnan(value("hmas_controller_attainment_predicted", {"bound": "high"}) or 0.0)
    assert value("hmas_controller_attainment_realised") == 0.85


def test_rollbacks_count_when_they_go_through(rise):
    metrics.count_decision(record(trigger="rollback", reason="rollback: realised 0.5"))
    metrics.count_decision(record(trigger="rollback", reason="twin predicts +0.1"))
    metrics.count_decision(record(reason="rollback: realised 0.5", tool_calls=[]))
    assert rise("hmas_controller_rollbacks_total") == 1


@pytest.mark.parametrize(
    ("mode", "accepted", "result"),
    [("act", True, "applied"), ("act", False, "refused"), ("advise", False, "advised")],
)
def test_tool_calls_are_counted_by_what_came_of_them(rise, mode, accepted, result):
    call = ToolCall("set_token_budget", {}, accepted=accepted, reason="")
    made_up = [replace(call, tool=name) for name in ("../tools/tool", "drop_all", "")]
    metrics.count_decision(record(horizon="short", mode=mode, tool_calls=[call, call, *made_up]))
    name = "hmas_controller_tool_calls_total"
    labels = {"horizon": "short", "result": result}
    assert rise(name, tool="set_token_budget", **labels) == 2
    assert rise(name, tool="other", **labels) == 3


def test_port_0_starts_nothing(monkeypatch):
    monkeypatch.setattr(metrics, "start_http_server", pytest.fail)
    metrics.start_metrics_server(0, "127.0.0.1")


def test_the_server_answers_in_prometheus_format():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics.start_metrics_server(port, "127.0.0.1")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        assert b"hmas_controller_tick_seconds" in reply.read()

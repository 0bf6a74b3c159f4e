"""The controller's metrics count what the graphs report, in boundedly many series."""

import socket
import urllib.request

import pytest

from hmas_agents import controller_metrics as metrics
from hmas_agents.records import Proposal
from tests.hmas_agents.samples import record


@pytest.fixture
def rise():
    """How much a sample has risen since the test began (the registry is the process's)."""

    def value(name, labels):
        return metrics.REGISTRY.get_sample_value(name, labels) or 0.0

    names = {
        ("hmas_controller_tick_seconds_count", "horizon", "short"),
        ("hmas_controller_policy_switches_total", "", ""),
        ("hmas_controller_model_faults_total", "code", "model_timeout"),
        ("hmas_controller_model_faults_total", "code", "other"),
        ("hmas_controller_twin_predictions_total", "result", "made"),
        ("hmas_controller_twin_predictions_total", "result", "none"),
    }
    before = {(n, k, v): value(n, {k: v} if k else {}) for n, k, v in names}
    return lambda n, k="", v="": value(n, {k: v} if k else {}) - before[n, k, v]


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
    assert rise("hmas_controller_model_faults_total", "code", "model_timeout") == 2
    assert rise("hmas_controller_model_faults_total", "code", "other") == 1
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


def test_port_0_starts_nothing(monkeypatch):
    monkeypatch.setattr(metrics, "start_http_server", pytest.fail)
    metrics.start_metrics_server(0)


def test_the_server_answers_in_prometheus_format():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    metrics.start_metrics_server(port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        assert b"hmas_controller_tick_seconds" in reply.read()

"""Spans reach a real collector; one that is away costs spans and a line of the log."""

import json
import logging
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from hmas_agents.config import TelemetryConfig
from hmas_agents.telemetry import otlp
from hmas_agents.telemetry.chat import chat_span
from hmas_agents.telemetry.start import open_tracing
from hmas_agents.telemetry.tracing import span, tick
from tests.hmas_agents.telemetry.collector import collecting
from tests.hmas_agents.telemetry.recorded import Recorded
from tests.source_tree import ROOT


@pytest.fixture(autouse=True)
def library_loggers():
    """Leave the libraries' log levels as they were."""
    before = {name: logging.getLogger(name).level for name in otlp.CHATTY}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def traced(url):
    return open_tracing(TelemetryConfig(otlp_endpoint=url), "hmas-host-1", {})


def test_a_tick_arrives_at_the_collector_as_a_tree():
    with collecting() as collector:
        tracing = traced(collector.url)
        with (
            tick(tracing, "long_tick", {"hmas.trigger": "rate_up"}),
            span("propose"),
            chat_span({"model": "small"}, "http://127.0.0.1:8000/v1"),
        ):
            pass
        tracing.close()  # sends what is left
    assert {path for path, _ in collector.sent} == {"/v1/traces"}
    by_name = {item.name: item for item in collector.spans()}
    assert set(by_name) == {"long_tick", "propose", "chat small"}
    assert by_name["long_tick"].parent_span_id == b""
    assert by_name["propose"].parent_span_id == by_name["long_tick"].span_id
    assert by_name["chat small"].parent_span_id == by_name["propose"].span_id
    (trigger,) = by_name["long_tick"].attributes
    assert (trigger.key, trigger.value.string_value) == ("hmas.trigger", "rate_up")
    said = collector.resource()
    assert said["service.name"] == "hmas-controller"
    assert said["service.instance.id"] == "hmas-host-1"


def test_the_environment_may_rename_the_service(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scheduler-blue")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod")
    with collecting() as collector:
        tracing = traced(collector.url)
        with tick(tracing, "short_tick"):
            pass
        tracing.close()
    said = collector.resource()
    assert said["service.name"] == "scheduler-blue"
    assert said["deployment.environment.name"] == "prod"


@pytest.mark.parametrize("refuses", [True, False], ids=["no collector", "a broken one"])
def test_a_collector_that_is_away_is_logged_once_and_disturbs_nothing(refuses, caplog):
    with collecting() as collector:
        collector.status = 400
        url = collector.url if not refuses else "http://user:secret@127.0.0.1:9"
        tracing = traced(url)
        for _ in range(3):
            with tick(tracing, "short_tick"):
                pass
            tracing._provider.force_flush()
        tracing.close()
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "spans do not reach 127.0.0.1:" in line
    assert "secret" not in line


def test_recovery_is_logged_too(caplog):
    with collecting() as collector:
        tracing = traced(collector.url)
        for status in (400, 400, 200, 200):
            collector.status = status
            with tick(tracing, "short_tick"):
                pass
            tracing._provider.force_flush()
        tracing.close()
    assert [" ".join(e.getMessage().split()[:4]) for e in caplog.records] == [
        "spans do not reach",
        f"spans reach {collector.url[7:]} again",
    ]
    assert len(collector.spans()) == 2


class Broken(SpanExporter):
    """An exporter that raises, and counts how often it is tried."""

    def __init__(self) -> None:
        self.tried = 0

    def export(self, spans):
        self.tried += 1
        raise RuntimeError("no")

    def shutdown(self):
        pass


def test_at_the_end_a_collector_known_to_be_away_is_not_tried_again():
    inner = Broken()
    exporter = otlp.TellingExporter(inner, "collector:4318")
    assert exporter.export([]) is SpanExportResult.FAILURE
    exporter.closing()
    assert exporter.export([]) is SpanExportResult.FAILURE
    assert inner.tried == 1


def test_what_an_endpoint_sends_is_cut_to_a_bounded_length():
    kept = Recorded(prompt_content=True)
    with tick(kept.tracing, "long_tick"), span("x", {"hmas.note": "y" * 10**6}):
        pass
    assert len(kept.attributes("x")["hmas.note"]) == otlp.MAX_ATTRIBUTE_CHARACTERS


def test_only_the_decisions_still_awaited_are_remembered():
    kept = Recorded()
    with kept.tracing.span("x", {}) as here:
        for at_s in range(otlp.REMEMBERED + 1):
            kept.tracing.remember(float(at_s), here)
    kept.tracing.span_about(0.0, "first", {})
    kept.tracing.span_about(1.0, "second", {})
    assert (len(kept.one("first").links), len(kept.one("second").links)) == (0, 1)


# LangSmith, which LangGraph brings, imports `opentelemetry.sdk.trace` where it finds it: so
# what counts is what is loaded beyond that, and that nothing is where it is not installed.
WITHOUT_ENDPOINT = """
import json, sys

if sys.argv[1] == "absent":
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "opentelemetry":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    sys.meta_path.insert(0, Absent())

def loaded():
    return sorted(name for name in sys.modules if name.partition(".")[0] == "opentelemetry")

import langgraph.graph, langgraph.prebuilt, openai
by_others = loaded()

from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.telemetry.start import open_tracing
from tests.fakes import FakeEngine

config = load_config(None, {"model.enabled": False, "twin.enabled": False})
engine = FakeEngine()
tracing = open_tracing(config.telemetry, "c1")
with ControlLoop(engine, config, None, tracing=tracing) as loop:
    for tick in (loop.short_tick, loop.short_tick, loop.long_tick):
        engine.now_s += 2.0
        tick()
ours = {"hmas_agents.telemetry.otlp"} & set(sys.modules)
print(json.dumps({"more": loaded() != by_others, "any": loaded() != [], "ours": sorted(ours)}))
"""


@pytest.mark.parametrize("installed", ["present", "absent"])
def test_without_an_endpoint_a_loop_ticks_and_loads_nothing(installed, monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_ENDPOINT, installed],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert not said["more"]
    assert said["any"] == (installed == "present")
    assert said["ours"] == []

"""Spans of a tick: which there are, how they nest, what they say and what they never say."""

import json
import logging
import sys
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode

from hmas_agents.config import ConfigError, TelemetryConfig, load_config
from hmas_agents.records import Proposal
from hmas_agents.telemetry import start
from hmas_agents.telemetry import tracing as seam
from hmas_agents.telemetry.attributes import decision_attributes, error_type
from tests.hmas_agents.samples import record
from tests.hmas_agents.telemetry.recorded import Recorded, said


class State(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]


def set_knob(value: int) -> str:
    """Turn a knob.

    Args:
        value: any number; a negative one breaks.
    """
    if value < 0:
        raise RuntimeError("tenant acme says no")
    return json.dumps({"accepted": value < 10, "epoch": 7, "reason": "tenant acme"})


KNOB = StructuredTool.from_function(set_knob, name="set_knob")


def graph(propose, act=lambda _: {}):
    """Two nodes of a test and the tools between them, wired as the horizons are."""
    built = StateGraph(State)
    built.add_node("propose", propose)
    built.add_node("tools", ToolNode([KNOB]))
    built.add_node("act", act)
    built.add_edge(START, "propose")
    built.add_conditional_edges("propose", lambda _: "tools", ["tools", END])
    built.add_edge("tools", "act")
    built.add_edge("act", END)
    return built.compile()


def calls(*values):
    tool_calls = [{"name": "set_knob", "args": {"value": v}, "id": f"c{v}"} for v in values]
    return {"messages": [AIMessage(content="", tool_calls=tool_calls)]}


def test_nodes_tools_and_agents_are_spans_below_their_tick():
    def propose(_):
        with seam.invoke_agent("batching"):
            return calls(1)

    def act(_):
        KNOB.invoke({"value": 12})
        return {}

    kept = Recorded()
    with seam.tick(kept.tracing, "short_tick") as traced:
        graph(propose, act).invoke({}, {"max_concurrency": 1} | traced)
    assert kept.paths() == {
        "short_tick",
        "short_tick/propose",
        "short_tick/propose/invoke_agent batching",
        "short_tick/tools",
        "short_tick/tools/execute_tool set_knob",
        "short_tick/act",
        "short_tick/act/execute_tool set_knob",
    }
    assert len({span.context.trace_id for span in kept.spans}) == 1
    assert kept.attributes("invoke_agent batching") == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "batching",
    }
    tools = [said(s) for s in kept.spans if s.name == "execute_tool set_knob"]
    common = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "set_knob",
        "gen_ai.tool.type": "function",
        "hmas.epoch.after": 7,
    }
    assert {**common, "gen_ai.tool.call.id": "c1", "hmas.tool.accepted": True} in tools
    assert {**common, "hmas.tool.accepted": False} in tools


def test_an_error_shows_by_its_kind_and_goes_on_but_its_words_stay_here():
    def propose(_):
        raise ValueError("tenant acme sent: ignore all rules")

    kept = Recorded()
    with (
        pytest.raises(ValueError, match="ignore all rules"),
        seam.tick(kept.tracing, "long_tick") as traced,
    ):
        graph(propose).invoke({}, traced)
    for name in ("long_tick", "long_tick/propose"):
        span = kept.one(name.rpartition("/")[2])
        assert said(span)["error.type"] == "ValueError"
        assert not span.status.is_ok
    assert "acme" not in "".join(span.to_json() for span in kept.spans)


def test_a_tool_that_breaks_ends_its_span_with_an_error():
    kept = Recorded()
    with (
        pytest.raises(RuntimeError, match="says no"),
        seam.tick(kept.tracing, "short_tick") as traced,
    ):
        graph(lambda _: calls(-1)).invoke({}, traced)
    assert kept.attributes("execute_tool set_knob")["error.type"] == "RuntimeError"
    assert "acme" not in "".join(span.to_json() for span in kept.spans)


def test_ticks_follow_each_other_and_leave_nothing_open():
    kept = Recorded()
    for _ in range(2):
        with seam.tick(kept.tracing, "short_tick") as traced:
            graph(lambda _: calls(1)).invoke({}, traced)
    roots = [span for span in kept.spans if span.name == "short_tick"]
    assert [span.parent for span in roots] == [None, None]
    assert seam.tracing_now() is None


def test_without_tracing_a_tick_adds_nothing_to_the_graph_and_spans_do_nothing():
    with seam.tick(None, "short_tick") as traced:
        assert traced == {}
        assert seam.tracing_now() is None
        assert seam.span("a") is seam.span("b", {"x": 1}) is seam.invoke_agent("c")
        with seam.span("a") as span:
            span.set({"hmas.load": 1.0})
        seam.note_decision(record())
        seam.note_outcome(1.0, 0.5, 0.4, 100)


def test_a_decision_is_written_into_its_ticks_span():
    decided = record(
        predicted=0.81, predicted_low=0.7, predicted_high=0.9, model_step_share=0.02,
        twin={"horizon_s": 60, "candidates": 257, "forecasts": 560, "wall_s": 3.5, "error": 0.04},
    )  # fmt: skip
    kept = Recorded()
    with seam.tick(kept.tracing, "long_tick"):
        seam.note_decision(decided)
    assert kept.attributes("long_tick") == {
        "hmas.horizon": "long", "hmas.mode": "act", "hmas.trigger": "tick",
        "hmas.epoch.before": 3, "hmas.epoch.after": 4,
        "hmas.policy.before": "edf", "hmas.policy.chosen": "slide", "hmas.policy.after": "slide",
        "hmas.decision.tools": ("switch_policy",), "hmas.decision.applied": True,
        "hmas.decision.faults": ("model_timeout",), "hmas.proposals": 2,
        "hmas.attainment": 0.54, "hmas.load": 1.3,
        "hmas.predicted": 0.81, "hmas.predicted.low": 0.7, "hmas.predicted.high": 0.9,
        "hmas.twin.error": 0.04, "hmas.twin.candidates": 257,
        "hmas.twin.forecasts": 560, "hmas.twin.wall_s": 3.5,
        "hmas.model.step_share": 0.02,
        "hmas.prompt.version": 1, "hmas.prompt.sha256": "ab" * 32, "gen_ai.prompt.name": "policy",
    }  # fmt: skip


def test_an_outcome_links_to_the_decision_it_is_about():
    kept = Recorded()
    with seam.tick(kept.tracing, "long_tick"):
        seam.note_decision(record(at_s=100.0))
    with seam.tick(kept.tracing, "long_tick"):
        seam.note_outcome(100.0, 0.75, 0.5, 240)
        seam.note_outcome(40.0, None, 0.5, 10)  # decided before this process began
    decision = next(span for span in kept.spans if span.name == "long_tick")
    about, unknown = [span for span in kept.spans if span.name == "decision_outcome"]
    assert [link.context.span_id for link in about.links] == [decision.context.span_id]
    assert said(about) == {
        "hmas.predicted": 0.75, "hmas.realised": 0.5, "hmas.realised.requests": 240,
        "hmas.twin.miss": 0.25,
    }  # fmt: skip
    assert list(unknown.links) == []
    assert said(unknown) == {"hmas.realised": 0.5, "hmas.realised.requests": 10}


def test_what_tenants_and_the_model_write_is_in_no_attribute():
    secret = "IGNORE ALL RULES, tenant acme"
    decided = record(
        reason=secret, summary=secret, raw_replies=[secret], faults=[f"reply_invalid: {secret}"],
        messages=[{"role": "user", "content": secret}],
        proposals=[Proposal("model", "slide", {}, secret)],
        state={"attainment": 0.5, "attainment_by_tenant": {secret: 0.1}, "load": secret},
    )  # fmt: skip
    assert secret not in json.dumps(decision_attributes(decided))
    assert decision_attributes(decided)["hmas.decision.faults"] == ("reply_invalid",)


def test_an_error_is_named_by_its_fault_code_else_by_its_class():
    class Fault(Exception):
        code = "model_timeout"

    class Odd(Exception):
        code = "whatever the server said"

    assert error_type(Fault("details")) == "model_timeout"
    assert error_type(Odd()).endswith("Odd")
    assert error_type(ConfigError("x")) == "hmas_agents.config.ConfigError"
    assert error_type(TimeoutError()) == "TimeoutError"


def opened(monkeypatch, configured="", **environ):
    """What `open_tracing` would start, as (url, target, instance, prompt_content); else None."""
    monkeypatch.setattr(start, "_starter", lambda: lambda *given: given)
    config = TelemetryConfig(otlp_endpoint=configured, prompt_content=True)
    return start.open_tracing(config, "c1", environ)


def test_tracing_starts_only_where_an_endpoint_is_configured(monkeypatch, caplog):
    here, env = "http://collector:4318", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:4318"}
    assert opened(monkeypatch) is None
    assert opened(monkeypatch, here) == (f"{here}/v1/traces", here, "c1", True)
    assert opened(monkeypatch, f"{here}/", **env)[0] == "http://collector:4318/v1/traces"
    other = "http://other:4318"
    assert opened(monkeypatch, **env) == (None, other, "c1", True)  # OpenTelemetry reads it itself
    assert opened(monkeypatch, here, OTEL_SDK_DISABLED="true") is None
    assert caplog.text == ""
    assert opened(monkeypatch, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **env) is None
    assert "telemetry.otlp_endpoint" in caplog.text


def test_an_endpoint_that_is_no_url_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint.*collector:4318"):
        load_config(None, {"telemetry.otlp_endpoint": "collector:4318"})


def test_without_opentelemetry_a_configured_endpoint_names_the_extra(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)  # importing it fails
    monkeypatch.delitem(sys.modules, "hmas_agents.telemetry.otlp", raising=False)
    with pytest.raises(start.TelemetryError, match=r"otlp_endpoint 'http://c:4318'.*\[otel\]"):
        start.open_tracing(TelemetryConfig(otlp_endpoint="http://c:4318"), "c1", {})
    assert caplog.records == []
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}
    assert start.open_tracing(TelemetryConfig(), "c1", environ) is None
    (line,) = caplog.records
    assert (line.levelno, "[otel]" in line.getMessage()) == (logging.WARNING, True)

"""The span of a model call follows the GenAI conventions, and keeps the prompt to itself."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes import error_attributes as error
from opentelemetry.semconv.attributes import server_attributes as server
from opentelemetry.trace import SpanKind

from hmas_agents.telemetry.chat import chat_span
from hmas_agents.telemetry.tracing import tick
from tests.hmas_agents.telemetry.recorded import Recorded

PROMPT = "Load: overload. Which policy?"
REQUEST = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0.0,
    "max_tokens": 200,
    "response_format": {"type": "json_schema", "json_schema": {}},
    "extra_body": {"vllm_xargs": {"tenant": "hmas"}},
}


@dataclass(frozen=True)
class Answer:
    text: str = '{"proposals": []}'
    finish_reason: str = "stop"
    prompt_tokens: int | None = 400
    completion_tokens: int | None = 60
    model: str = "smollm2-135m"


def ask(kept: Recorded, answer: Any = Answer(), request=REQUEST, url="http://10.1.2.3:8000/v1"):
    with tick(kept.tracing, "long_tick"), chat_span(request, url) as span:
        span.answered(answer)


def test_a_call_is_a_client_span_with_the_names_of_the_conventions():
    kept = Recorded()
    ask(kept)
    span = kept.one("chat smollm2")
    assert span.kind is SpanKind.CLIENT
    assert kept.attributes("chat smollm2") == {
        gen_ai.GEN_AI_OPERATION_NAME: "chat",
        gen_ai.GEN_AI_PROVIDER_NAME: "openai",
        gen_ai.GEN_AI_REQUEST_MODEL: "smollm2",
        gen_ai.GEN_AI_REQUEST_MAX_TOKENS: 200,
        gen_ai.GEN_AI_REQUEST_TEMPERATURE: 0.0,
        gen_ai.GEN_AI_OUTPUT_TYPE: "json",
        gen_ai.GEN_AI_RESPONSE_MODEL: "smollm2-135m",
        gen_ai.GEN_AI_RESPONSE_FINISH_REASONS: ("stop",),
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: 400,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: 60,
        server.SERVER_ADDRESS: "10.1.2.3",
        server.SERVER_PORT: 8000,
    }
    assert kept.paths() == {"long_tick", "long_tick/chat smollm2"}


def test_a_call_that_fails_is_an_error_by_its_kind():
    kept = Recorded()
    with (
        pytest.raises(TimeoutError),
        tick(kept.tracing, "long_tick"),
        chat_span(REQUEST, "https://api.example.com/v1"),
    ):
        raise TimeoutError("no reply to: " + PROMPT)
    said = kept.attributes("chat smollm2")
    assert said[error.ERROR_TYPE] == "TimeoutError"
    assert (said[server.SERVER_ADDRESS], said[server.SERVER_PORT]) == ("api.example.com", 443)
    assert gen_ai.GEN_AI_USAGE_INPUT_TOKENS not in said


def test_prompt_and_reply_are_written_only_when_asked_for():
    shy, open_ = Recorded(), Recorded(prompt_content=True)
    ask(shy)
    ask(open_)
    assert PROMPT not in "".join(span.to_json() for span in shy.spans)
    said = open_.attributes("chat smollm2")
    assert json.loads(said[gen_ai.GEN_AI_INPUT_MESSAGES]) == [
        {"role": "user", "parts": [{"type": "text", "content": PROMPT}]}
    ]
    assert json.loads(said[gen_ai.GEN_AI_OUTPUT_MESSAGES]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": '{"proposals": []}'}],
            "finish_reason": "stop",
        }
    ]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "not an answer",
        replace(Answer(), prompt_tokens=None, completion_tokens=None, finish_reason=""),
        SimpleNamespace(prompt_tokens="many", finish_reason=7, text=None, model=["x"]),
    ],
)
def test_an_endpoint_that_answers_nonsense_costs_attributes_only(answer):
    kept = Recorded(prompt_content=True)
    ask(kept, answer, request={"messages": "none", "response_format": 3}, url="http://[bad")
    said = kept.attributes("chat")
    assert said[gen_ai.GEN_AI_OPERATION_NAME] == "chat"
    assert gen_ai.GEN_AI_USAGE_INPUT_TOKENS not in said


def test_outside_a_traced_tick_a_call_is_not_looked_at():
    with chat_span({}, "") as span:
        span.answered(Answer())
    with pytest.raises(ValueError, match="as before"), chat_span({}, ""):
        raise ValueError("as before")

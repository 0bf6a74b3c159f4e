"""What does a span say? From records and calls to attributes.

Names are those of OpenTelemetry's GenAI conventions where these have one
(github.com/open-telemetry/semantic-conventions-genai, in development: a version of them
is checked by the tests), else `hmas.*`. Values are numbers, flags and words of closed sets:
no request text, no name of a tenant, no reason. Pure functions, called by `tracing`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from hmas_agents.records import DecisionRecord

Attribute = str | bool | int | float | tuple[str, ...]
Attributes = Mapping[str, Attribute | None]


def agent_attributes(name: str) -> Attributes:
    """An agent of ours, in this process."""
    return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}


def tool_attributes(name: str, call_id: str | None) -> Attributes:
    """A tool's call. Its arguments are in the ledger: they may name tenants."""
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": call_id,
    }


def tool_result_attributes(content: object) -> Attributes:
    """What the tool answered, from the JSON of its `ToolResult`."""
    try:
        result = json.loads(content) if isinstance(content, str) else None
    except ValueError:  # ToolNode's own words, for a tool that does not exist
        result = None
    if not isinstance(result, dict):
        return {"hmas.tool.accepted": False}
    return {
        "hmas.tool.accepted": result.get("accepted") is True,
        "hmas.epoch.after": _int(result.get("epoch")),
    }


def decision_attributes(record: DecisionRecord) -> Attributes:
    """A decision. Attainments are shares of requests, 0 to 1."""
    chosen, twin = record.chosen, record.twin
    return {
        "hmas.horizon": record.horizon,
        "hmas.mode": record.mode,
        "hmas.trigger": record.trigger,
        "hmas.epoch.before": record.epoch_before,
        "hmas.epoch.after": record.epoch_after,
        "hmas.policy.before": record.policy_before,
        "hmas.policy.chosen": _text(chosen.get("policy")),
        "hmas.policy.after": _text(record.snapshot_after.get("policy")),
        "hmas.decision.source": _text(chosen.get("source")),
        "hmas.decision.tools": tuple(call.tool for call in record.tool_calls),
        "hmas.decision.applied": any(call.accepted for call in record.tool_calls),
        "hmas.decision.faults": tuple(f.partition(":")[0].strip() for f in record.faults),
        "hmas.proposals": len(record.proposals),
        "hmas.attainment": _float(record.state.get("attainment")),
        "hmas.load": _float(record.state.get("load")),
        "hmas.predicted": record.predicted,
        "hmas.predicted.low": record.predicted_low,
        "hmas.predicted.high": record.predicted_high,
        "hmas.twin.error": _float(twin.get("error")),
        "hmas.twin.candidates": _int(twin.get("candidates")),
        "hmas.twin.forecasts": _int(twin.get("forecasts")),
        "hmas.twin.wall_s": _float(twin.get("wall_s")),
        "hmas.model.step_share": record.model_step_share,
        "hmas.prompt.version": record.prompt_version,
        "hmas.prompt.sha256": record.prompt_sha256 or None,
        "gen_ai.prompt.name": record.prompt_name or None,
    }


def outcome_attributes(predicted: float | None, realised: float, requests: int) -> Attributes:
    """What came of a decision in the window after it."""
    return {
        "hmas.predicted": predicted,
        "hmas.realised": realised,
        "hmas.realised.requests": requests,
        "hmas.twin.miss": None if predicted is None else abs(realised - predicted),
    }


def chat_request_attributes(arguments: Mapping[str, Any], base_url: str) -> Attributes:
    """What is asked of a model: the keyword arguments of an OpenAI chat completion.

    The provider is `openai` for every endpoint that is reached by OpenAI's client: the
    conventions name the provider by what the client knows, `server.*` tell them apart.
    """
    host, port = _host_and_port(base_url)
    wanted = arguments.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": _text(arguments.get("model")),
        "gen_ai.request.max_tokens": _int(arguments.get("max_tokens")),
        "gen_ai.request.temperature": _float(arguments.get("temperature")),
        "gen_ai.request.top_p": _float(arguments.get("top_p")),
        "gen_ai.request.seed": _int(arguments.get("seed")),
        "gen_ai.output.type": "json" if kind in {"json_schema", "json_object"} else None,
        "server.address": host,
        "server.port": port,
    }


def chat_response_attributes(reply: object) -> Attributes:
    """What a model answered, of `telemetry.chat.Reply`. What has the wrong type is left out."""
    reason = _text(getattr(reply, "finish_reason", None))
    return {
        "gen_ai.response.id": _text(getattr(reply, "id", None)),
        "gen_ai.response.model": _text(getattr(reply, "model", None)),
        "gen_ai.response.finish_reasons": (reason,) if reason else None,
        "gen_ai.usage.input_tokens": _int(getattr(reply, "prompt_tokens", None)),
        "gen_ai.usage.output_tokens": _int(getattr(reply, "completion_tokens", None)),
    }


def prompt_content(messages: object) -> Attributes:
    """The prompt, for those who opted in."""
    items = messages if isinstance(messages, list) else []
    said = [
        _message(item.get("role"), item.get("content")) for item in items if isinstance(item, dict)
    ]
    return {"gen_ai.input.messages": json.dumps(said)}


def reply_content(reply: object) -> Attributes:
    """The reply, for those who opted in."""
    reason = _text(getattr(reply, "finish_reason", None)) or "stop"
    said = {**_message("assistant", getattr(reply, "text", None)), "finish_reason": reason}
    return {"gen_ai.output.messages": json.dumps([said])}


def error_type(error: BaseException) -> str:
    """A word for an error: its fault code or else its class; never its message."""
    code = getattr(error, "code", None)
    if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,40}", code):
        return code
    kind = type(error)
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


def _message(role: object, text: object) -> dict[str, Any]:
    return {"role": str(role), "parts": [{"type": "text", "content": str(text or "")}]}


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None, None
    return parts.hostname, port if parts.hostname else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)

"""Does real vLLM load the gateway's middleware and serve under the tenant it names?"""

from typing import Any

import httpx
import pytest

from serving.contracts import Outcome
from serving.engines.live import LiveEngine
from tests.real.conftest import GATEWAY_TOKEN, MODEL, RealServer
from tests.real.test_real_engine import wait_for

pytestmark = pytest.mark.real_vllm


def served(
    server: RealServer, engine: LiveEngine, headers: dict[str, str], path: str, body: dict[str, Any]
) -> Outcome:
    """What the engine's journal says of one request."""
    head = engine.snapshot().journal_head
    body = {"model": MODEL, "max_tokens": 4, **body}
    reply = httpx.post(f"{server.url}{path}", json=body, headers=headers, timeout=120)
    assert reply.status_code == httpx.codes.OK, reply.text
    if body.get("stream"):
        assert reply.text.rstrip().endswith("data: [DONE]")
    wait_for(lambda: bool(engine.journal(head).outcomes))
    (outcome,) = engine.journal(head).outcomes
    return outcome


def test_a_gateways_headers_say_whose_a_request_is(server: RealServer, engine: LiveEngine) -> None:
    said = {
        "x-hmas-gateway-token": GATEWAY_TOKEN, "x-llm-d-inference-fairness-id": "gw-acme",
        "x-llm-d-inference-objective": "document", "x-hmas-priority": "-5",
    }  # fmt: skip
    chat = {"messages": [{"role": "user", "content": "Hello"}], "stream": True}
    completion = {"prompt": "Hello", "vllm_xargs": {"tenant": "me", "slo_ttft_ms": 1}}
    for path, body in (("/v1/chat/completions", chat), ("/v1/completions", completion)):
        outcome = served(server, engine, said, path, body)
        assert (outcome.tenant, outcome.slo_class) == ("gw-acme", "document")
    said["x-hmas-gateway-token"] = "guessed"
    outcome = served(server, engine, said, "/v1/completions", completion)
    assert (outcome.tenant, outcome.slo_class) == ("me", "custom"), "as without a gateway"


def test_what_is_wrong_in_a_body_is_vllms_to_say(server: RealServer) -> None:
    said = {"x-hmas-gateway-token": GATEWAY_TOKEN, "x-hmas-tenant": "gw-acme"}
    for content in (b"{", b"[]", b'{"vllm_xargs": 7}'):
        reply = httpx.post(
            f"{server.url}/v1/completions", content=content, timeout=60,
            headers={**said, "content-type": "application/json"},
        )  # fmt: skip
        assert reply.status_code == httpx.codes.BAD_REQUEST, reply.text

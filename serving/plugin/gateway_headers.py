"""What do a gateway's headers say of a request, and how does the engine get to know?

Pure functions of headers and body, called by the middleware in `gateway.py`. Names of the
endpoint picker's headers: https://llm-d.ai/docs/0.8/api-reference/epp-http-headers, and
before 0.8 the same without `llm-d` (objective and fairness id: `gateway`).
"""

import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.contracts import tenant_name
from serving.contracts.settings import EngineSettings
from serving.perception.attributes import sign_tenant, signed_tenant, target_ms

TOKEN_HEADER = "x-hmas-gateway-token"
PRIORITY_HEADER = "x-hmas-priority"
# What a header says -> its names; the first one present counts.
TENANT_HEADERS = (
    "x-hmas-tenant", "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id",
)  # fmt: skip
CLASS_HEADER = "x-hmas-slo-class"
OBJECTIVE_HEADERS = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
TARGET_HEADERS = {
    "slo_ttft_ms": ("x-hmas-slo-ttft-ms", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"),
    "slo_tpot_ms": ("x-hmas-slo-tpot-ms", "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms"),
    "slo_e2e_ms": ("x-hmas-slo-e2e-ms",),
    "slo_itl_ms": ("x-hmas-slo-itl-ms",),
}
HEADERS = frozenset((
    TOKEN_HEADER, PRIORITY_HEADER, CLASS_HEADER, *TENANT_HEADERS, *OBJECTIVE_HEADERS,
    *(name for names in TARGET_HEADERS.values() for name in names),
))  # fmt: skip
_SLO_KEYS = ("slo_class", *TARGET_HEADERS)
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Claims:
    """What believed headers say; None and empty stand for nothing said.

    Attributes:
        tenant: its name.
        slo: the entries of `vllm_xargs` that take the place of the client's SLO.
        priority: vLLM's, lower first.
    """

    tenant: str | None
    slo: Mapping[str, str | float]
    priority: int | None


def believed(headers: Mapping[str, str], settings: EngineSettings) -> bool:
    """The trust rule: whether headers of this request are a gateway's word."""
    if settings.gateway != "token":
        return settings.gateway == "always"
    secret = os.environ.get("HMAS_GATEWAY_TOKEN", "").encode()
    given = headers.get(TOKEN_HEADER, "").encode("utf-8", "surrogatepass")
    return bool(secret) and hmac.compare_digest(given, secret)


def read_claims(headers: Mapping[str, str], settings: EngineSettings) -> Claims | None:
    """What the headers say, values that make no sense left out; None if nothing is left."""
    slo: dict[str, str | float] = {}
    for key, names in TARGET_HEADERS.items():
        if (target := target_ms(_first(headers, names))) is not None:
            slo[key] = target
    objective = _first(headers, OBJECTIVE_HEADERS) or ""
    for name in (headers.get(CLASS_HEADER), settings.gateway_objectives.get(objective), objective):
        if name and settings.slo_of(name) is not None:
            slo["slo_class"] = name
            break
    claims = Claims(
        tenant_name(_first(headers, TENANT_HEADERS)), slo, _priority(headers.get(PRIORITY_HEADER))
    )
    return None if claims == Claims(None, {}, None) else claims


def rewritten(body: bytes, claims: Claims, place: Sequence[str]) -> bytes:
    """The request body with the claims written into it.

    Args:
        body: JSON. What is none, or not of the expected shape, is returned as it is: vLLM
            answers it with 400.
        claims: they replace what the client wrote about the same thing. A proof that the client
            sends is dropped, unless it signs a request of the token holder's own.
        place: keys that lead to vLLM's extra arguments.
    """
    try:
        message = json.loads(body)  # as FastAPI reads it, so that both see the same
        arguments = _extra_arguments(message, place)
        if arguments is None:
            return body
        if claims.tenant is not None:
            proof = sign_tenant(claims.tenant, signer="named")
            arguments |= {"tenant": claims.tenant, "tenant_proof": proof}
        elif signed_tenant(arguments, "own") is None:
            arguments.pop("tenant_proof", None)
        if claims.slo:
            for key in _SLO_KEYS:  # a client's targets would go before the gateway's class
                arguments.pop(key, None)
            arguments |= claims.slo
        if claims.priority is not None:
            message["priority"] = claims.priority
        return json.dumps(message).encode()
    except (ValueError, RecursionError):
        return body


def _extra_arguments(message: Any, place: Sequence[str]) -> dict[str, Any] | None:
    """The object at `place`, created if only it is missing; None where it cannot be."""
    *outer, last = place
    for key in outer:
        message = message.get(key) if isinstance(message, dict) else None
    if not isinstance(message, dict):
        return None
    if message.get(last) is None:
        message[last] = {}
    found = message[last]
    return found if isinstance(found, dict) else None


def _first(headers: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((headers[name] for name in names if headers.get(name)), None)


def _priority(text: str | None) -> int | None:
    try:
        return max(-_INT64, min(int(text or ""), _INT64 - 1))
    except ValueError:
        return None

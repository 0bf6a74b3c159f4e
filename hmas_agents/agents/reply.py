"""What may the model answer, and what is wrong with an answer that may not?

The reply schema (version 1) as sent to the endpoint, and the check of what came
back. Used by `policy_agent` alone.
"""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hmas_agents.records import Proposal
from serving.policies import POLICIES

SCHEMA_VERSION = 1
MAX_PROPOSALS = 3
MAX_REASON_CHARS = 160

# What the endpoint is asked to write is tighter than what is accepted: three full
# reasons do not fit a short reply, and a free number may never end.
_ASKED_REASON_CHARS = 60
_ASKED_CONFIDENCES = (0.1, 0.3, 0.5, 0.7, 0.9)


class ProposedPolicy(BaseModel):
    """One proposal as the model writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str
    params: dict[str, float] = Field(default_factory=dict)
    reason: str = Field("", max_length=MAX_REASON_CHARS)
    confidence: float = Field(ge=0.0, le=1.0)


class Reply(BaseModel):
    """The whole reply: proposals, best first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposals: tuple[ProposedPolicy, ...] = Field(min_length=1, max_length=MAX_PROPOSALS)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply said: usable proposals, and faults as `code: detail`."""

    proposals: list[Proposal] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def json_schema(allowed: tuple[str, ...], max_proposals: int) -> dict[str, Any]:
    """JSON schema of a reply that may only name `allowed` policies and their own bounds."""
    bounds = {key: b for name in allowed for key, b in askable_bounds(name).items()}
    properties: dict[str, Any] = {
        "policy": {"type": "string", "enum": list(allowed)},
        "confidence": {"enum": list(_ASKED_CONFIDENCES)},
        "reason": {"type": "string", "maxLength": _ASKED_REASON_CHARS},
        "params": {
            "type": "object",
            "properties": {
                key: {"type": "integer", "minimum": int(low), "maximum": int(high)}
                for key, (low, high) in sorted(bounds.items())
            },
            "additionalProperties": False,
        },
    }
    proposal = {
        "type": "object",
        "properties": properties,
        "required": ["policy", "confidence", "reason"],
        "additionalProperties": False,
    }
    proposals = {"type": "array", "items": proposal, "minItems": 1, "maxItems": max_proposals}
    return {
        "type": "object",
        "properties": {"proposals": proposals},
        "required": ["proposals"],
        "additionalProperties": False,
    }


def askable_bounds(policy: str) -> dict[str, tuple[float, float]]:
    """Bounds of the parameters that the model is asked for: those that whole numbers fit."""
    bounds = POLICIES[policy].param_bounds
    return {key: (low, high) for key, (low, high) in bounds.items() if high - low >= 1}


def read_reply(text: str, allowed: tuple[str, ...]) -> Reading:
    """Validate a reply. Proposals that name no allowed policy are left out, as faults."""
    try:
        reply = Reply.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "reply"
        return Reading(faults=[f"reply_invalid: {key}: {first['msg']}"])
    reading = Reading()
    for item in reply.proposals:
        if item.policy not in allowed:
            reading.faults.append(f"unknown_policy: {item.policy[:40]!r}")
            continue
        reading.proposals.append(
            Proposal("model", item.policy, dict(item.params), item.reason, item.confidence)
        )
    return reading

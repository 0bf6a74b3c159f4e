"""What may the model answer, and what is wrong with an answer that may not?

The reply schema (version 1) as sent to the endpoint, and the check of what came
back: the answer after any thinking, and numbers made up in a reason. Used by `policy_agent`; the
summary lists the same parameter values.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hmas_agents.records import Proposal
from serving.policies import POLICIES

SCHEMA_VERSION = 1
MAX_PROPOSALS = 3
MAX_REASON_CHARS = 160
MAX_REPLY_CHARS = 16_000

# What the endpoint is asked to write is tighter than what is accepted: three full
# reasons do not fit a short reply, and a free number may never end. Grammar backends may
# write a listed 0.1 as 0.10000000000000001, so numbers are halves or whole, else strings.
_ASKED_REASON_CHARS = 60
_ASKED_CONFIDENCES = (0.25, 0.5, 0.75)
_STEPS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of a parameter's default
_FROM_ZERO = (0.0, 0.1, 0.25, 0.5, 1.0)  # of its upper bound, where the default is 0

_THINKING_ENDS = "</think>"
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TOLERANCE = 1e-9

_Name = Annotated[str, Field(max_length=40)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class ProposedPolicy(BaseModel):
    """One proposal as the model writes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: str
    params: dict[_Name, _Finite] = Field(default_factory=dict, max_length=8)
    reason: str = Field("", max_length=MAX_REASON_CHARS)
    confidence: float = Field(ge=0.0, le=1.0, allow_inf_nan=False)


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
    """JSON schema of a reply that may only name `allowed` policies, each with its own values.

    Policies without parameters share one alternative, the others have one each.
    """
    plain = [name for name in allowed if not askable_values(name)]
    alternatives = [_proposal(plain, {})] if plain else []
    alternatives += [_proposal([n], v) for n in allowed if (v := askable_values(n))]
    proposals = {
        "type": "array",
        "items": {"anyOf": alternatives},
        "minItems": 1,
        "maxItems": max_proposals,
    }
    return {
        "type": "object",
        "properties": {"proposals": proposals},
        "required": ["proposals"],
        "additionalProperties": False,
    }


def askable_values(policy: str) -> dict[str, tuple[float, ...]]:
    """The values that the model may choose from, by parameter: few, ascending, in bounds.

    A free number may never end and small models copy it from anywhere; a list is exact
    for whole numbers and fractions alike. The policy's own choices where it has them; else
    a quarter to four times the default where it is positive, tenths of the upper bound where
    it is 0, and both bounds.
    """
    found = POLICIES[policy]
    return {
        key: found.param_choices.get(key) or _values(low, high, found.default_params[key])
        for key, (low, high) in found.param_bounds.items()
    }


def read_reply(text: str, allowed: tuple[str, ...]) -> Reading:
    """Validate a reply. Proposals that name no allowed policy are left out, as faults."""
    if len(text) > MAX_REPLY_CHARS:
        return Reading(faults=[f"reply_invalid: {len(text)} characters, at most {MAX_REPLY_CHARS}"])
    try:
        reply = Reply.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "reply"
        return Reading(faults=[f"reply_invalid: {key[:80]}: {first['msg'][:200]}"])
    reading = Reading()
    for item in reply.proposals:
        if item.policy not in allowed:
            reading.faults.append(f"unknown_policy: {item.policy[:40]!r}")
            continue
        reading.proposals.append(
            Proposal("model", item.policy, dict(item.params), item.reason, item.confidence)
        )
    return reading


def _proposal(policies: list[str], values: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "policy": {"type": "string", "enum": policies},
        "confidence": {"enum": list(_ASKED_CONFIDENCES)},
        "reason": {"type": "string", "maxLength": _ASKED_REASON_CHARS},
    }
    if values:
        properties["params"] = {
            "type": "object",
            "properties": {key: {"enum": _written(v)} for key, v in sorted(values.items())},
            "additionalProperties": False,
        }
    return {
        "type": "object",
        "properties": properties,
        "required": ["policy", "confidence", "reason"],
        "additionalProperties": False,
    }


def _values(low: float, high: float, default: float) -> tuple[float, ...]:
    if default > 0:
        steps = [default * step for step in _STEPS]
    else:
        steps = [default, *(high * step for step in _FROM_ZERO)]
    rounded = (float(f"{value:.3g}") for value in steps)
    return tuple(sorted({low, high, default} | {v for v in rounded if low <= v <= high}))


def _written(values: tuple[float, ...]) -> list[int] | list[str]:
    """As the model shall write them: whole numbers as they are, lists with fractions as text."""
    if all(value.is_integer() for value in values):
        return [int(value) for value in values]
    return [f"{value:g}" for value in values]


def without_thinking(text: str) -> tuple[str, int]:
    """The answer after a `<think>...</think>` block, and how many characters came before.

    Chat templates may open the block in the prompt, so the closing tag alone counts; but
    a text that opens as JSON has no thinking before it.
    """
    if text.lstrip().startswith("{") or _THINKING_ENDS not in text:
        return text, 0
    thinking, _, answer = text.partition(_THINKING_ENDS)
    return answer, len(thinking) + len(_THINKING_ENDS)


def invented_numbers(proposal: Proposal, sent: Iterable[str]) -> list[str]:
    """Numbers in a proposal's reason that are neither in what was sent nor its own.

    Digits inside names count (`t3` needs a `t3` or a 3), and a share may be written as a
    percentage.
    """
    own = [*proposal.params.values(), *([proposal.confidence] if proposal.confidence else [])]
    known = {float(number) for text in sent for number in _NUMBER.findall(text)} | set(own)
    known |= {100 * number for number in known}
    return [
        number
        for number in _NUMBER.findall(proposal.reason)
        if all(abs(float(number) - k) > _TOLERANCE * max(1.0, abs(k)) for k in known)
    ]

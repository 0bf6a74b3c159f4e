"""What does a language model make of a text? Asked with a prompt, at any endpoint.

Decoding is bound to the schema and to the names in the contract. What the text does not say the
model may not add: names, amounts and times must be in it, or be defaults of the vocabulary.
"""

import json
import math
import re
from collections.abc import Callable, Container, Iterator
from typing import Any, get_args

from hmas_agents.agents.chat import Answer
from hmas_agents.agents.reply import without_thinking
from hmas_agents.intent.change import (
    NEUTRAL,
    PROTECT_FACTOR,
    SHARES,
    SHED_SHARE,
    WAIT_FACTOR,
    ChangeError,
    Kind,
    Names,
    Question,
    read_answer,
)
from hmas_agents.intent.grammar import with_names
from hmas_agents.intent.quantities import clock_after
from hmas_agents.intent.reading import Reading
from prompts.loader import FrontMatter, Message, Prompt, PromptError

SCHEMA_VERSION = 1
MOST = 0.9  # probabilities of tokens are not calibrated: none of them is enough for `--yes`
UNKNOWN = 0.5  # confidence where the endpoint tells no probabilities
_CLOCK = {"anyOf": [{"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
                    {"type": "null"}]}  # fmt: skip


Chat = Callable[[list[Message], dict[str, Any], FrontMatter], Answer]
"""Messages, the JSON schema of the answer and the prompt's settings, to the answer."""


class ModelReader:
    """Asks once for each text.

    Raises:
        PromptError: at construction, when the prompt asks for another reply or has other variables.
    """

    def __init__(self, chat: Chat, prompt: Prompt, name: str = "model") -> None:
        if prompt.head.schema_version != SCHEMA_VERSION:
            raise PromptError(
                f"{prompt.path}: schema_version: words are read from replies of version "
                f"{SCHEMA_VERSION}, got {prompt.head.schema_version}"
            )
        prompt.render(names="", now="", text="")  # a variable that is not filled in shows now
        self._chat, self._prompt, self.name = chat, prompt, name

    def read(self, text: str, now: str, names: Names) -> Reading:
        """See Reader. Raises ModelFault where nothing comes back."""
        known = f"tenants {json.dumps(names.tenants)}, classes {json.dumps(names.slo_classes)}"
        messages = self._prompt.render(names=known, now=now, text=json.dumps(text))
        answer = self._chat(messages, reply_schema(names), self._prompt.head)
        reply = _reply(answer)
        if invented := sorted(set(_invented(reply, text, now, names))):
            return Reading({"question": f"You did not say {', '.join(invented)[:200]}."}, 0.0)
        sure = UNKNOWN if answer.logprob is None else min(MOST, math.exp(answer.logprob))
        return Reading(reply, sure)


def reply_schema(names: Names) -> dict[str, Any]:
    """What the endpoint may write: changes with names of the contract, and a question or ""."""
    change = {
        "kind": {"enum": list(get_args(Kind))},
        "tenant": {"enum": [None, *names.tenants]},
        "slo_class": {"enum": [None, *names.slo_classes]},
        "amount": {"type": ["number", "null"]},
        "from": _CLOCK,
        "until": _CLOCK,
        "for_min": {"type": ["integer", "null"]},
    }
    changes = {"type": "array", "maxItems": 6, "items": _object(change)}
    return _object({"changes": changes, "question": {"type": "string", "maxLength": 120}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _reply(answer: Answer) -> object:
    """JSON data as `read_answer` takes it; None, which it refuses, of what is no reply."""
    try:
        said = json.loads(without_thinking(answer.text)[0])
        if not said["changes"]:
            return {"question": said["question"] or "What shall change?"}
        changes = []
        for each in said["changes"]:
            amount = each.pop("amount")
            each["share" if each.get("kind") in SHARES else "factor"] = amount
            changes.append({key: value for key, value in each.items() if value is not None})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return changes


def _invented(reply: object, text: str, now: str, names: Names) -> Iterator[str]:
    """What of a reply that can be read is neither in the text nor a default."""
    try:
        changes = read_answer(reply, names, now)
    except ChangeError:
        return
    if isinstance(changes, Question):
        return
    said = with_names(text.casefold(), names)
    tenants = {names.tenants[int(i)] for i in re.findall(r"\bT(\d+)", said)}
    classes = {names.slo_classes[int(i)] for i in re.findall(r"\bC(\d+)", said)}
    minutes = {int(lasts) for lasts in re.findall(r"<min (\d+)>", said)}
    clocks = set(re.findall(r"<at (\S+)>", said)) | {clock_after(now, lasts) for lasts in minutes}
    amounts = {*NEUTRAL.values(), PROTECT_FACTOR, WAIT_FACTOR, SHED_SHARE}
    for unit, number in re.findall(r"<(x|share) ([\d.e+]+)>", said):
        value = float(number)
        amounts |= {value, 1 - value, 1 + value} if unit == "share" else {value, 1 / (value or 1)}
    amounts = {round(amount, 2) for amount in amounts}
    for change in changes:
        told: tuple[tuple[object, Container[object]], ...] = (
            (change.tenant, tenants), (change.slo_class, classes), (change.for_min, minutes),
            (change.from_, clocks), (change.until, clocks), (change.amount, amounts),
        )  # fmt: skip
        for each, known in told:
            if each is not None and each not in known:
                yield f"{each:g}" if isinstance(each, float) else str(each)

"""Which replica gets a request? By what each has said, what it was sent, and what was promised.

For a router that sees texts: Ray's (`ray_router`), or a gateway's. What was sent to a replica is
remembered as numbers of the text's beginnings, and counts as cached there. The choice itself is
`serving.core.routing`.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.contracts import SLO, RoutingHint
from serving.contracts.settings import EngineSettings
from serving.core import routing
from serving.perception.attributes import slo_of, tenant_of

CHARACTERS_PER_TOKEN = 4.0  # of English, in the tokenizers of today
PIECE = 256  # characters of a text that are remembered together
REMEMBERED = 16_384  # pieces of each replica: 4 million characters, a million tokens


@dataclass(frozen=True, slots=True)
class Asked:
    """What a router knows of a request.

    Attributes:
        pieces: a number for each beginning of its text, longest last.
        tokens: of its prompt, roughly.
        target_s: TTFT that was promised; infinite where nothing was.
    """

    pieces: tuple[int, ...]
    tokens: float
    target_s: float


class ReplicaChooser:
    """What a router knows of replicas, by their names."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._hints = np.zeros(0, routing.HINT)
        self._said: dict[str, object] = {}
        self._sent: dict[str, OrderedDict[int, None]] = {}
        self._routed = 0

    def follow(self, said: Mapping[str, RoutingHint | None], now_s: float) -> None:
        """Take in what replicas have said since; who is not among them is forgotten.

        Args:
            said: by replica; None of one that has not said anything yet.
            now_s: on the clock of this process.
        """
        if self._names != list(said):
            old = dict(zip(self._names, self._hints, strict=True))
            self._names, self._hints = list(said), np.zeros(len(said), routing.HINT)
            self._sent = {name: self._sent.get(name, OrderedDict()) for name in said}
            self._said = {name: self._said.get(name) for name in said}
            for k, name in enumerate(said):
                if name in old:
                    self._hints[k] = old[name]
        for k, (name, hint) in enumerate(said.items()):
            if hint is not None and hint != self._said[name]:
                self._said[name] = hint
                routing.take_in(self._hints, k, hint, now_s)

    def order(self, asked: Asked, now_s: float) -> list[str]:
        """Replicas, the best for a request first; the others stand in if it does not answer."""
        if not self._names:
            return []
        tokens = np.array([asked.tokens - self._cached(name, asked) for name in self._names])
        first = self._routed % len(self._names)
        best = routing.choose(self._hints, tokens, asked.target_s, now_s, first)
        others = [name for k, name in enumerate(self._names) if k != best]
        return [self._names[best], *others]

    def sent(self, asked: Asked, name: str, now_s: float) -> None:
        """A request went to a replica."""
        self._routed += 1
        if name not in self._sent:
            return
        tokens = asked.tokens - self._cached(name, asked)
        routing.sent(self._hints, self._names.index(name), tokens, asked.target_s, now_s)
        pieces = self._sent[name]
        for piece in asked.pieces:
            pieces[piece] = None
            pieces.move_to_end(piece)
        while len(pieces) > REMEMBERED:
            pieces.popitem(last=False)

    def _cached(self, name: str, asked: Asked) -> float:
        pieces, found = self._sent[name], 0
        while found < len(asked.pieces) and asked.pieces[found] in pieces:
            found += 1
        return min(asked.tokens - 1.0, found * PIECE / CHARACTERS_PER_TOKEN)


def asked_of(text: str, extra: Mapping[str, Any], lora: str | None, given: EngineSettings) -> Asked:
    """What a router knows of a request with this prompt and these `vllm_xargs`."""
    _, slo = slo_of(extra, given, tenant_of(extra, lora, given))
    tokens = max(1.0, len(text) / CHARACTERS_PER_TOKEN)
    return Asked(tuple(_beginnings(text)), tokens, _target_s(slo))


def mean_hint(hints: Sequence[RoutingHint]) -> RoutingHint:
    """Of engines among which requests are divided evenly."""
    due_s = np.mean([one.prefill_due_s for one in hints], axis=0)
    return RoutingHint(
        tuple(due_s.tolist()),
        float(np.mean([one.prefill_s_per_token for one in hints])),
        float(np.mean([one.decode_step_s for one in hints])),
    )


def text_of(prompt: Any) -> str:
    """The text of an OpenAI request's `prompt` or `messages`; what is no text counts nothing."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Mapping):
        return text_of(prompt.get("text") or prompt.get("content"))
    if isinstance(prompt, Sequence):
        return "".join(map(text_of, prompt))
    return ""


def _target_s(slo: SLO) -> float:
    targets = [ms / 1000 for ms in (slo.ttft_ms, slo.e2e_ms) if ms is not None]
    return min(targets, default=math.inf)


def _beginnings(text: str) -> Iterator[int]:
    number = 0
    for end in range(PIECE, len(text) + 1, PIECE):
        number = hash((number, text[end - PIECE : end]))
        yield number

"""Which replica gets a request? By what each has said, what it was sent, and what was promised.

For a router that sees texts: Ray's (`ray_router`), or a gateway's. What was sent to a replica is
remembered as numbers of the text's beginnings, and counts as cached there. The choice itself is
`serving.core.routing`.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving.contracts import SLO, Contract, RoutingHint, decode
from serving.contracts.settings import EngineSettings
from serving.core import routing
from serving.perception.attributes import slo_of, tenant_of

CHARACTERS_PER_TOKEN = 4.0  # of English, in the tokenizers of today
PIECE = 256  # characters of a text that are remembered together
STALE_S = 20.0  # a replica that has said nothing for so long gets requests if no other can
UNHEARD = 1_000  # requests since a replica said something that are remembered
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


@dataclass(frozen=True, slots=True)
class Said:
    """What a replica said of itself, and when, in Unix time.

    Attributes:
        epoch: of the contract that it holds; 0 is the one it started with.
        contract: that one as data, where it is another than at the start.
    """

    at_s: float
    hint: RoutingHint
    epoch: int = 0
    contract: Mapping[str, Any] | None = None


@dataclass(slots=True)
class _Replica:
    """What a router has sent to a replica.

    Attributes:
        heard_s: when it said what we have of it.
        pieces: of all texts, the latest last.
        since: moment, tokens and target of what went out after that.
    """

    heard_s: float = -math.inf
    pieces: OrderedDict[int, None] = field(default_factory=OrderedDict)
    since: deque[tuple[float, float, float]] = field(
        default_factory=lambda: deque(maxlen=UNHEARD)
    )


class ReplicaChooser:
    """What a router knows of replicas, by their names. All moments are in Unix time.

    Args:
        given: the settings that the replicas started with.
    """

    def __init__(self, given: EngineSettings) -> None:
        self._given, self._settings, self._epoch = given, given, 0
        self._replicas: dict[str, _Replica] = {}
        self._hints = np.zeros(0, routing.HINT)
        self._routed = 0
        one = np.zeros(1, routing.HINT)  # compile now: the first request is not to wait for that
        routing.sent(one, 0, 1.0, 1.0, 0.0)
        routing.choose(one, np.ones(1), 1.0, 0.0, 0)

    def follow(self, said: Mapping[str, Said | None]) -> None:
        """Take in what replicas have said; who is not among them is forgotten.

        Args:
            said: by replica; None of one that has not said anything yet.
        """
        if list(self._replicas) != list(said):
            old = dict(zip(self._replicas, self._hints, strict=True))
            self._replicas = {name: self._replicas.get(name, _Replica()) for name in said}
            self._hints = np.zeros(len(said), routing.HINT)
            for k, name in enumerate(said):
                if name in old:
                    self._hints[k] = old[name]
        self._promise(max(filter(None, said.values()), key=lambda one: one.epoch, default=None))
        learned = [each.hint for each in said.values() if each is not None and each.hint.learned]
        for k, (name, news) in enumerate(said.items()):
            replica = self._replicas[name]
            if news is None or news.at_s <= replica.heard_s:
                continue
            replica.heard_s = news.at_s
            hint = news.hint if news.hint.learned or not learned else _as(learned, news.hint)
            routing.take_in(self._hints, k, hint, news.at_s)
            while replica.since and replica.since[0][0] <= news.at_s:
                replica.since.popleft()
            for at_s, tokens, target_s in replica.since:  # what it did not have then
                routing.sent(self._hints, k, tokens, target_s, at_s)

    def asked(self, text: str, extra: Mapping[str, Any], lora: str | None) -> Asked:
        """What is known of a request with this prompt and these `vllm_xargs`.

        Its target is that of the newest contract that a replica holds.
        """
        given = self._settings
        _, slo = slo_of(extra, given, tenant_of(extra, lora, given))
        tokens = max(1.0, len(text) / CHARACTERS_PER_TOKEN)
        return Asked(tuple(_beginnings(text)), tokens, _target_s(slo))

    def order(self, asked: Asked, now_s: float) -> list[str]:
        """Replicas, the best for a request first; the others stand in if it does not answer."""
        if not self._replicas:
            return []
        replicas = list(self._replicas.values())
        heard = [k for k, each in enumerate(replicas) if now_s - each.heard_s <= STALE_S]
        among = heard or list(range(len(replicas)))
        tokens = np.array([_to_compute(asked, replicas[k]) for k in among])
        first = self._routed % len(among)
        best = routing.choose(self._hints[among], tokens, asked.target_s, now_s, first)
        names = list(self._replicas)
        return [names.pop(among[best]), *names]

    def sent(self, asked: Asked, name: str, now_s: float) -> None:
        """A request went to a replica."""
        self._routed += 1
        if (replica := self._replicas.get(name)) is None:
            return
        tokens, k = _to_compute(asked, replica), list(self._replicas).index(name)
        routing.sent(self._hints, k, tokens, asked.target_s, now_s)
        replica.since.append((now_s, tokens, asked.target_s))
        for piece in asked.pieces:
            replica.pieces[piece] = None
            replica.pieces.move_to_end(piece)
        while len(replica.pieces) > REMEMBERED:
            replica.pieces.popitem(last=False)

    def _promise(self, newest: Said | None) -> None:
        """Take the newest contract for what was promised; read once, for this is asked often."""
        if newest is None or newest.epoch == self._epoch:
            return
        self._epoch, told = newest.epoch, newest.contract
        contract = self._given.contract if told is None else decode(Contract, told)
        self._settings = self._given.model_copy(update={"contract": contract})


def _to_compute(asked: Asked, replica: _Replica) -> float:
    """Tokens of a prompt, but for those that were sent to the replica before."""
    found = 0
    while found < len(asked.pieces) and asked.pieces[found] in replica.pieces:
        found += 1
    return max(1.0, asked.tokens - found * PIECE / CHARACTERS_PER_TOKEN)


def mean_hint(hints: Sequence[RoutingHint]) -> RoutingHint:
    """Of engines among which requests are divided evenly."""
    due_s = np.mean([one.prefill_due_s for one in hints], axis=0)
    return RoutingHint(
        tuple(due_s.tolist()),
        float(np.mean([one.prefill_s_per_token for one in hints])),
        float(np.mean([one.decode_step_s for one in hints])),
        all(one.learned for one in hints),
    )


def _as(others: Sequence[RoutingHint], new: RoutingHint) -> RoutingHint:
    """What a new replica owes at the others' costs: its own guess might leave it without work."""
    mean = mean_hint(others)
    scale = mean.prefill_s_per_token / new.prefill_s_per_token
    due_s = tuple(each * scale for each in new.prefill_due_s)
    return RoutingHint(due_s, mean.prefill_s_per_token, mean.decode_step_s, False)


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

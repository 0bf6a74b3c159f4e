"""What does a decision cost? Tokens, and step time where the model runs on the same engine.

Called by the policy agent.
"""

import math
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from serving.contracts import CostCoefficients, Snapshot
from serving.engines.ranks import rank_count

CHARACTERS_PER_TOKEN = 4  # English text, where the endpoint counts no tokens
OnEngine = bool | Literal["auto"]
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens of one reply, or of all attempts at one decision."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    @property
    def tokens(self) -> int:
        """Prompt and reply together."""
        return self.prompt_tokens + self.completion_tokens


def tokens_of_text(text: str) -> int:
    """Rough number of tokens of a text, where nobody counted."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def step_seconds(cost: Cost, coefficients: CostCoefficients, decoding: int) -> float:
    """Seconds of the engine's step time that a reply takes, by the engine's own cost model.

    What `CostCoefficients.request_s` says of it in a batch of the D requests that decode and
    itself, and the same share of the base of one more step: the shares of all requests add up to
    the engine's whole step time. Assumes that nothing of the prompt is cached (an upper bound) and
    that the batch stays as it is.
    """
    prompt, reply = float(cost.prompt_tokens), float(cost.completion_tokens)
    if prompt + reply == 0:
        return 0.0
    batch = 1 + max(0, decoding)
    return sum(coefficients.request_s(prompt, 0.0, reply, batch)) + coefficients.base_s / batch


def decoding_per_rank(snapshot: Snapshot) -> int:
    """Requests decoding beside the agent's own, in the engine core that serves it."""
    return round(snapshot.batch.decoding / rank_count(snapshot))


def runs_on_engine(base_url: str, engine_url: str, on_engine: OnEngine) -> bool:
    """Whether the model's endpoint is the controlled engine; `auto` compares host and port.

    Of a fleet: whether it is one of the servers named, or the DNS name of all.
    """
    if on_engine != "auto":
        return on_engine
    return any(_place(base_url) == _place(url.strip()) for url in engine_url.split(","))


def _place(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return url, None
    return "loopback" if host in _LOOPBACK else host, port

"""Who reads an operator's text, and how sure is it? What a grammar and every model implement."""

from dataclasses import dataclass
from typing import Protocol

from hmas_agents.intent.change import Names


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader makes of one text.

    Attributes:
        reply: JSON data for `read_answer`, not yet checked: a list of changes, or a question.
        confidence: 0 to 1, how likely the reply is right.
        ask_below: of less confidence one has to ask whether this is meant.
    """

    reply: object
    confidence: float
    ask_below: float = 0.5

    @property
    def is_clear(self) -> bool:
        """Sure enough to be shown as what was understood."""
        return self.confidence >= self.ask_below


class Reader(Protocol):
    """Reads texts: a grammar, a model at an endpoint, an adapter."""

    @property
    def name(self) -> str:
        """What tables and the ledger call it."""

    def read(self, text: str, now: str, names: Names) -> Reading:
        """Read one text.

        Args:
            text: in the operator's words.
            now: the local time, "HH:MM"; relative beginnings count from it.
            names: those of the contract in force.
        """


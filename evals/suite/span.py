"""How long is a case, and which part of it counts?

Traffic goes on after what counts: whoever puts requests off would otherwise finish them on an
engine to which nothing comes any more, or not before the end although in time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A case's time, from 0 s on: warm-up, what counts, tail. Requests arrive in all of it.

    Attributes:
        counted_s: length of what counts.
        warmup_s, tail_s: of what is served before and after it, and counts for nothing.
    """

    counted_s: float
    warmup_s: float = 0.0
    tail_s: float = 0.0

    @property
    def counted_until_s(self) -> float:
        """When the tail begins."""
        return self.warmup_s + self.counted_s

    @property
    def until_s(self) -> float:
        """When all ends, whatever is still inside."""
        return self.counted_until_s + self.tail_s

    def counts(self, arrival_s: float) -> bool:
        """Whether a request that arrives then counts."""
        return self.warmup_s <= arrival_s <= self.counted_until_s

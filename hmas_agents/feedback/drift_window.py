"""Do the newest requests look like those before? Counts in two parts of one window.

The newest quarter against the rest, as the long state's PSI reads it. Every arrival is
counted once, moved once and dropped once. Used by `Feedback`.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from hmas_agents.feedback.drift import length_bin, shift
from hmas_agents.feedback.windows import MAX_EVENTS

Group = tuple[str, str]  # tenant and SLO class


@dataclass(slots=True)
class _Part:
    """The arrivals of one part, oldest first, and how often each kind is among them."""

    events: deque[tuple[float, int, Group]] = field(default_factory=deque)
    lengths: Counter[int] = field(default_factory=Counter)
    groups: Counter[Group] = field(default_factory=Counter)

    def add(self, event: tuple[float, int, Group]) -> None:
        self.events.append(event)
        self.lengths[event[1]] += 1
        self.groups[event[2]] += 1

    def pop(self) -> tuple[float, int, Group]:
        event = self.events.popleft()
        _take(self.lengths, event[1])
        _take(self.groups, event[2])
        return event


@dataclass(slots=True)
class DriftWindow:
    """Prompt lengths and tenant mix of the older and the newer part of a window."""

    max_events: int = MAX_EVENTS
    _older: _Part = field(default_factory=_Part)
    _newer: _Part = field(default_factory=_Part)

    def add(self, at_s: float, prompt_tokens: int, tenant: str, slo_class: str) -> None:
        """Count an arrival; the oldest gives way when the window is full."""
        self._newer.add((at_s, length_bin(prompt_tokens), (tenant, slo_class)))
        if len(self._newer.events) + len(self._older.events) > self.max_events:
            (self._older if self._older.events else self._newer).pop()

    def advance(self, since_s: float, newer_s: float) -> None:
        """Let the window begin at `since_s`, and its newer part at `newer_s`."""
        while self._newer.events and self._newer.events[0][0] < newer_s:
            self._older.add(self._newer.pop())
        while self._older.events and self._older.events[0][0] < since_s:
            self._older.pop()

    def lengths(self) -> tuple[float, bool]:
        """Shift of prompt lengths (log2 bins) beyond chance, and whether it is significant."""
        return shift(self._older.lengths, self._newer.lengths)

    def mix(self) -> tuple[float, bool]:
        """The same for tenants and SLO classes."""
        return shift(self._older.groups, self._newer.groups)


def _take(counts: Counter[Any], key: object) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]

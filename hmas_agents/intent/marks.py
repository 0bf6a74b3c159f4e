"""What does the taught model see of a text? Marks in place of names and numbers.

`T1` stands for a tenant, `C1` for an SLO class, `A1` for a time of the day, `D1` for a duration,
`S1` for a share, `X1` for a factor. Each letter counts in the order of appearance; what appears
again has its mark again. So nothing is left to copy or to calculate.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hmas_agents.intent.change import Names
from hmas_agents.intent.grammar import with_names

Value = str | float
_NUMBER = r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?"
_MARKED = re.compile(
    rf"\b(?P<T>T\d+)\b|\b(?P<C>C\d+)\b|<at (?P<A>\d\d:\d\d)>|<min (?P<D>{_NUMBER})>"
    rf"|<share (?P<S>{_NUMBER})>|<x (?P<X>{_NUMBER})>"
)


@dataclass(frozen=True, slots=True)
class MarkedText:
    """A text in small letters on one line, and what each mark in it stands for.

    Attributes:
        values: names, "HH:MM", minutes, shares and factors by mark, in the order of appearance.
    """

    text: str
    values: Mapping[str, Value]


def mark(text: str, names: Names) -> MarkedText:
    """Put a mark in the place of every name, time, duration, share and factor."""
    marks: dict[tuple[str, Value], str] = {}

    def put(found: re.Match[str]) -> str:
        letter, sign = str(found.lastgroup), ""
        value = _value(letter, found[letter], names)
        if letter == "S" and found[letter].startswith("-"):  # "-20%" is 20% less
            value, sign = -float(value), "-"
        key = letter, value
        if key not in marks:
            marks[key] = f"{letter}{1 + sum(each == letter for each, _ in marks)}"
        return sign + marks[key]

    left = _MARKED.sub(put, with_names(text.casefold(), names))
    return MarkedText(" ".join(left.split()), {mark: value for (_, value), mark in marks.items()})


def _value(letter: str, said: str, names: Names) -> Value:
    if letter == "A":
        return said
    if letter in "TC":
        return (names.tenants if letter == "T" else names.slo_classes)[int(said[1:])]
    return float(said)

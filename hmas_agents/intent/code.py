"""What does the taught model write? Changes in a few words over the marks of the text.

    ask
    expect T1 X1 from A1; weight C1 low until A2
    shed T1 C1 1-S1 from +D1 for D2

A change is its kind, whose it is, its amount, its beginning and its end. An amount is a mark, one
sum or quotient of it, or a word for a default of the vocabulary, which a language model tells apart
better than numbers; `+D1` is so long after now.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from hmas_agents.intent.change import MAX_CHANGES, SHARES, ChangeError, Kind
from hmas_agents.intent.marks import Value
from hmas_agents.intent.quantities import clock_after

ASK = "ask"
DEFAULTS = {"high": 3.0, "low": 0.3, "usual": 1.0, "all": 1.0, "none": 0.0}
_KINDS = "|".join(get_args(Kind))
_CHANGE = re.compile(
    rf"(?P<kind>{_KINDS})(?: (?P<tenant>T\d+))?(?: (?P<slo_class>C\d+))? (?P<amount>\S+)"
    r"(?: from (?P<from>A\d+|\+D\d+))?(?: (?:until (?P<until>A\d+)|for (?P<for_min>D\d+)))?"
)
_AMOUNT = re.compile(r"(?:1(?P<sign>[-+/]))?(?P<mark>[XS]\d+)")


def changes_of(code: str, values: Mapping[str, Value], now: str) -> list[dict[str, Any]]:
    """The changes of a code, not yet checked against a contract; none of `ask`.

    Args:
        code: what the model wrote.
        values: what the marks stand for.
        now: the local time, "HH:MM".

    Raises:
        ChangeError: it is no code, or has a mark that the text lacks.
    """
    if code == ASK:
        return []
    return [_change(each, values, now) for each in code.split("; ")]


def pattern(marks: Collection[str]) -> str:
    """A regular expression of all codes over these marks, for constrained decoding."""
    of = {letter: [mark for mark in marks if mark[0] == letter] for letter in "TCADSX"}
    amounts = list(DEFAULTS)
    amounts += [f"(1/)?{mark}" for mark in of["X"]] + [f"(1[-+])?{mark}" for mark in of["S"]]
    begins = [*of["A"], *(rf"\+{mark}" for mark in of["D"])]
    ends = [f"until {mark}" for mark in of["A"]] + [f"for {mark}" for mark in of["D"]]
    change = (
        f"({_KINDS}){_one(' ', of['T'])}{_one(' ', of['C'])} ({'|'.join(amounts)})"
        f"{_one(' from ', begins)}{_one(' ', ends)}"
    )
    return rf"({ASK}|{change}(; {change}){{0,{MAX_CHANGES - 1}}})"


def _one(before: str, choices: list[str]) -> str:
    """One of these or none of them."""
    return f"({before}({'|'.join(choices)}))?" if choices else ""


def _change(code: str, values: Mapping[str, Value], now: str) -> dict[str, Any]:
    parts = _CHANGE.fullmatch(code)
    if parts is None:
        raise ChangeError(f"no change: {code!r}")
    said: dict[str, Any] = {"kind": parts["kind"]}
    said["share" if parts["kind"] in SHARES else "factor"] = _amount(parts["amount"], values)
    for field in ("tenant", "slo_class", "until"):
        if parts[field]:
            said[field] = _of(parts[field], values)
    if begins := parts["from"]:
        value = _of(begins.removeprefix("+"), values)
        said["from"] = clock_after(now, float(value)) if begins[0] == "+" else value
    if parts["for_min"]:
        said["for_min"] = int(_of(parts["for_min"], values))
    return said


def _amount(code: str, values: Mapping[str, Value]) -> float:
    if code in DEFAULTS:
        return DEFAULTS[code]
    parts = _AMOUNT.fullmatch(code)
    if parts is None:
        raise ChangeError(f"no amount: {code!r}")
    value = float(_of(parts["mark"], values))
    if parts["sign"] == "/":
        return 1 / value if value else float("inf")
    return {None: value, "-": 1 - value, "+": 1 + value}[parts["sign"]]


def _of(mark: str, values: Mapping[str, Value]) -> Any:
    if mark not in values:
        raise ChangeError(f"the text has no {mark}")
    return values[mark]

"""Which times, durations, shares and factors does a text name, however they are written?

`marked` puts `<at 18:00>`, `<min 90>`, `<share 0.3>` or `<x 3>` in their place, so that a reader
has no arithmetic to do. A plain number is a factor: `weight 5`. English only.
"""

import re
from collections.abc import Callable

_HOURS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve",
)  # fmt: skip
_WORDS: dict[str, float] = {word: n for n, word in enumerate(_HOURS, 1)} | {
    "fifteen": 15, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90, "a hundred": 100, "a": 1, "an": 1, "half an": 0.5,
    "doubl": 2, "twice": 2, "tripl": 3, "thrice": 3, "quadrupl": 4,
    "half": 0.5, "third": 1 / 3, "quarter": 0.25, "fifth": 0.2, "tenth": 0.1,
}  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS |= {
    f"{ten}{gap}{one}": _WORDS[ten] + _WORDS[one]
    for ten in _TENS for one in _HOURS[:9] for gap in " -"
}  # fmt: skip
_N = rf"(-?\d+(?:\.\d+)?|{'|'.join(sorted(_WORDS, key=len, reverse=True))})"
_HOUR = rf"(\d\d?|{'|'.join(_HOURS)})"
_HALF = r" ?(a\.m\.?|am\b|p\.m\.?|pm\b|(?:o'clock )?in the (?:morning|afternoon|evening))"


def _value(word: str) -> float:
    return _WORDS[word] if word in _WORDS else float(word)


def clock_after(clock: str, minutes: float) -> str:
    """The time of day ("HH:MM") so many minutes after another."""
    at = (60 * int(clock[:2]) + int(clock[3:]) + int(minutes)) % (24 * 60)
    return f"{at // 60:02}:{at % 60:02}"


def _at(hour: str, minute: str | float | None = None, half: str | None = None) -> str:
    """`half`: the words that say which half of the day; without them the hour is of 24."""
    hours = _value(hour)
    if half:
        hours = hours % 12 + 12 * bool(re.search("p|even|after", half))
    return f"<at {clock_after('00:00', 60 * hours + float(minute or 0))}>"


def _past_or_to(m: re.Match[str]) -> str:
    step = _value(m[1]) if _value(m[1]) > 1 else 60 * _value(m[1])
    return _at(m[3], step if m[2] == "past" else -step, m[4])


# Longer and clearer forms come first: what is marked is not looked at again.
_FORMS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"\b(?:12 )?noon\b(?!-)", lambda _: "<at 12:00>"),
    (r"\bmidnight\b", lambda _: "<at 00:00>"),
    (rf"\b(half|quarter|five|ten|twenty) (past|to) {_HOUR}{_HALF}", _past_or_to),
    (rf"\b(\d+)(?::(\d\d))? ?(?:-|to|and) ?(\d+)(?::(\d\d))?{_HALF}",
     lambda m: f"{_at(m[1], m[2], m[5])} to {_at(m[3], m[4], m[5])}"),
    (rf"\b{_HOUR}(?::(\d\d))?{_HALF}", lambda m: _at(m[1], m[2], m[3])),
    (r"\b([01]?\d|2[0-3]):([0-5]\d)\b(?!>)", lambda m: _at(m[1], m[2])),
    (r"\b(from|at|to|until|till?|before|after|and|between) (\d\d?)(?:h\b|h?([0-5]\d)h?\b)",
     lambda m: f"{m[1]} {_at(m[2], m[3])}"),
    (r"\b(until|till?) (1[3-9]|2[0-3])\b(?![.:%]| ?(?:p|x|times))",
     lambda m: f"{m[1]} {_at(m[2])}"),
    (rf"\b{_N} hours? and a half\b|\b{_N} and a half hours?\b",
     lambda m: f"<min {60 * _value(m[1] or m[2]) + 30:.0f}>"),
    (r"\b(?:a|(three)) quarters? of an hour\b", lambda m: f"<min {45 if m[1] else 15}>"),
    (rf"\b{_N} ?h(?:(?:ou)?rs?)?,?(?: and)? {_N} ?m(?:in(?:ute)?s?)?\b",
     lambda m: f"<min {60 * _value(m[1]) + _value(m[2]):.0f}>"),
    (rf"\b(\d+|{'|'.join(_HOURS)}) days?\b", lambda m: f"<min {24 * 60 * _value(m[1]):.0f}>"),
    (r"\b(\d+)h(\d\d)\b", lambda m: f"<min {60 * int(m[1]) + int(m[2])}>"),
    (rf"\b(?!am\b){_N}[ -]?(?:m(?:in(?:ute)?s?)?|(h)(?:(?:ou)?rs?)?)\b",
     lambda m: f"<min {_value(m[1]) * (60 if m[2] else 1):.0f}>"),
    (rf"(?<!\w){_N} ?(?:%|per ?ce?nt|pct)", lambda m: f"<share {_value(m[1]) / 100:.4g}>"),
    (rf"\b{_N} (?:in|out of) {_N}\b(?! ?m| ?h)",
     lambda m: f"<share {_value(m[1]) / (_value(m[2]) or 1):.4g}>"),
    (rf"\b{_N}(?: ?[x×](?!\w)| times\b|[ -]?fold\b)|\b(?:x ?|times |factor (?:of )?){_N}\b"
     r"|\b(?:(doubl|tripl|quadrupl)(?:es?|ed|ing)|(twice|thrice))\b",
     lambda m: f"<x {_value(m[1] or m[2] or m[3] or m[4]):g}>"),
    (r"\bhalv(?:es?|ed|ing)\b", lambda _: "cut by <share 0.5>"),
    (r"(?<![\w/.])(\d+)/(\d+)(?![\w/.])",
     lambda m: f"<share {int(m[1]) / (int(m[2]) or 1):.4g}>"),
    (r"\b(?:(one|a|two|three)[ -])?(half|third|quarter|fifth|tenth)s?\b",
     lambda m: f"<share {_value(m[1] or 'a') * _WORDS[m[2]]:.4g}>"),
    (r"(?<![\w<:.-])(?<!<at )(?<!<x )(?<!<min )(?<!<share )(-?\d+(?:\.\d+)?)(?![\w:])",
     lambda m: f"<x {m[1]}>"),
)  # fmt: skip


def marked(text: str) -> str:
    """A text in small letters with each time, duration, share and factor in one form."""
    for pattern, mark in _FORMS:
        text = re.sub(pattern, mark, text)
    return text

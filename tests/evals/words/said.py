"""What does a text say? Every number, clock time, duration and name that it may be read as.

Generous on purpose, and apart from the readers that are evaluated: it only finds what a case
expects and its text never said.
"""

import re
import unicodedata
from difflib import SequenceMatcher
from itertools import pairwise

WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30,
    "forty": 40, "eighty": 80, "ninety": 90, "double": 2, "twice": 2, "twofold": 2,
    "triple": 3, "tripple": 3, "triples": 3, "thrice": 3, "quadruple": 4, "half": 0.5,
    "halve": 0.5, "third": 1 / 3, "thirds": 2 / 3, "quarter": 0.25, "quarters": 0.75,
    "fourth": 0.25, "fifth": 0.2, "tenth": 0.1, "halfte": 0.5, "funftel": 0.2, "trois": 3,
    "doble": 2, "zero": 0, "no": 0, "none": 0, "nothing": 0,
}  # fmt: skip
DEFAULTS: dict[str, set[float]] = {
    "weight": {3, 0.3, 1}, "floor": {0}, "slo_scale": {1}, "shed": {1, 0}, "expect": {1, 0},
}  # fmt: skip
NUMBERS = set(WORDS) - {"one", "zero", "no", "none", "nothing"}  # also said without counting
UNITS = (
    r"%|per ?ce?nt|pct|x|-fold|times|a\.m\.|p\.m\.|am|pm|h\d*|m|mins?|minut(?:es|i)|hrs?|hours?"
    r"|o'clock|uhr"
)
FORMAT = re.compile(
    rf"(?:\bx|\b(?:factor|times) (?:of )?|[+-])?\d+(?:[.:]\d+)?(?:[ -]?(?:{UNITS})(?!\w))?"
)
NEAR = 0.74  # of two words, one of them with a typo or an ending


def plain(text):
    """Small letters without accents."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c))


def numbers(text):
    found = {float(n) for n in re.findall(r"\d+(?:\.\d+)?", text)}
    return found | {float(WORDS[w]) for w in re.findall(r"[a-z]+", plain(text)) if w in WORDS}


def amounts(kind, text):
    found = set(DEFAULTS[kind])
    for n in numbers(text):
        found |= {n, n / 100, 1 + n / 100, 1 - n / 100}
        found |= {1 + n, 1 - n} if n < 1 else {1 / n, 1 - 1 / n}
    return {round(v, 2) for v in found}


def _value(word):
    return WORDS[word] if word in WORDS else float(word)


def minutes(text):
    text = plain(text)
    number = rf"(\d+(?:\.\d+)?|{'|'.join(WORDS)})"
    in_minutes = re.findall(rf"{number}[ -]?m(?:in(?:ute)?s?|inuti)?\b", text)
    in_hours = re.findall(rf"{number}[ -]?h(?:(?:ou)?rs?)?\b", text)
    found = {round(_value(n)) for n in in_minutes} | {round(60 * _value(n)) for n in in_hours}
    found |= {60 * int(h) + int(m) for h, m in re.findall(r"(\d+)h(\d\d)\b", text)}
    found |= {60} if re.search(r"\ban hour\b", text) else set()
    found |= {30} if re.search(r"\bhalf an hour\b", text) else set()
    return found | ({90} if "hour and a half" in text else set())


def _both_halves(hour, minute):
    return {f"{h:02}:{minute:02}" for h in (hour, (hour + 12) % 24) if h < 24}


def clocks(text, now):
    text = plain(text)
    found = {"12:00"} if "noon" in text else set()
    found |= {"00:00"} if "midnight" in text else set()
    for hour, minute in re.findall(r"(\d{1,2})(?:[:.h]?(\d\d))?", text):
        found |= _both_halves(int(hour), int(minute or 0))
    hour = "|".join(w for w, v in WORDS.items() if v in range(1, 13)) + "|midnight"
    steps = {"half": 30, "quarter": 15, "ten": 10, "five": 5, "twenty": 20}
    for step, way, word in re.findall(rf"({'|'.join(steps)}) (past|to) ({hour})\b", text):
        whole = 0 if word == "midnight" else WORDS[word]
        at = (60 * whole + (steps[step] if way == "past" else -steps[step])) % 1440
        found |= _both_halves(at // 60, at % 60)
    for word in re.findall(rf"\b({hour})\b", text):
        found |= _both_halves(WORDS.get(word, 0), 0)
    start = int(now[:2]) * 60 + int(now[3:])
    found |= {f"{t // 60:02}:{t % 60:02}" for t in ((start + d) % 1440 for d in minutes(text))}
    return found


def is_named(name, text, known):
    """Whether the text names this one of `known`: whole, in part where that is clear, or nearly."""
    words = re.findall(r"[a-z0-9]+", plain(text))
    pairs = [a + b for a, b in pairwise(words)]
    whole = re.sub("[^a-z0-9]", "", plain(name))
    if whole in "".join(words) or any(_alike(whole, word) for word in words + pairs):
        return True
    others = {p for other in known if other != name for p in re.split("[^a-z0-9]", plain(other))}
    parts = [p for p in re.split("[^a-z0-9]", plain(name)) if p and p not in others]
    return any(_alike(part, word) for part in parts for word in words)


def _alike(name, word):
    if len(name) < 4:
        return name in {word, word.removesuffix("s"), word.removesuffix("ging")}
    return word.startswith(name[:-1]) or SequenceMatcher(None, name, word).ratio() >= NEAR


def without_names(text, known):
    """The text in small letters with `_` for each name, and for each clear part of one."""
    parts = {p for name in known for p in re.split("[^a-z0-9]", plain(name)) if len(p) > 2}
    names = sorted({plain(name) for name in known} | parts, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, names)), "_", plain(text))


def phrasing(text, known):
    """What is left of a text without names and numbers: texts that share it are one template."""
    words = re.sub(rf"\b({'|'.join(NUMBERS)})\b|[\d.:]*\d", "0", without_names(text, known))
    return " ".join(re.findall(r"[a-z_]+|[0%]", words))


def number_formats(text, known):
    """The formats of its numbers, digits as `9`; words that are numbers as they are."""
    left = re.sub(r"_\S*", "_", without_names(text, known))
    found = {re.sub(r"\d+", "9", shape) for shape in FORMAT.findall(left)}
    return found | {word for word in re.findall("[a-z]+", left) if word in NUMBERS}

"""How do people write names and numbers? Drawn for the slots of a phrasing.

Numbers only in the forms of the development half, names of neither half (the README of
`evals/cases` says which they are): what is judged by the test half has not seen its forms.
"""

import tomllib
from pathlib import Path
from random import Random

from hmas_agents.intent.change import Names

Drawn = tuple[str, str | float]
"""How it is written, and what it stands for."""

_NAMES: dict[str, list[str]] = tomllib.loads(
    (Path(__file__).parent / "names.toml").read_text(encoding="utf-8")
)
_TENS = {20: "twenty", 30: "thirty", 40: "forty", 60: "sixty", 70: "seventy", 80: "eighty"}
_HOURS = {6: "six", 9: "nine", 11: "eleven"}
_FACTORS = (0.25, 0.4, 0.5, 0.8, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 20.0)
_LASTS_MIN = (5, 10, 15, 20, 25, 30, 40, 45, 60, 90, 120, 180, 240, 360)


def coined(rng: Random) -> str:
    """A name that nobody has."""
    syllables = [
        rng.choice(_NAMES["onsets"]) + rng.choice(_NAMES["vowels"]) + rng.choice(_NAMES["codas"])
        for _ in range(rng.randint(2, 3))
    ]
    return "".join(syllables)


def outsider(rng: Random) -> str:
    """What stands where a name should be, and names nobody of the contract."""
    if rng.random() < 0.15:
        return rng.choice(_NAMES["outside"])
    return coined(rng) if rng.random() < 0.6 else rng.choice(_NAMES["tenants"])


def contract(rng: Random, tenants: int, classes: int) -> Names:
    """Names of a contract with at least so many tenants and SLO classes, in no order."""
    names: set[str] = set()
    while len(names) < tenants + rng.randint(1, 2):
        names.add(rng.choice(_NAMES["tenants"]) if rng.random() < 0.5 else coined(rng))
    known = rng.sample(_NAMES["classes"], classes + rng.randint(1, 2))
    ordered = sorted(names)
    rng.shuffle(ordered)
    return Names(tenants=tuple(ordered), slo_classes=tuple(known))


def written(name: str, rng: Random) -> str:
    """A name as somebody types it."""
    if rng.random() < 0.25:
        name = name.replace("-", " ")
    roll = rng.random()
    if roll < 0.1:
        return name.title()
    if roll < 0.14:
        return name.upper()
    return name


def factor(rng: Random) -> Drawn:
    """A factor: `3 times`, `4-fold`, `times 3`, `thrice`, `2.5`."""
    value = rng.choice(_FACTORS)
    forms = [f"{value:g} times", f"{value:g}-fold", f"times {value:g}", f"{value:g}"]
    forms += {3.0: ["thrice"], 4.0: ["quadruple"], 6.0: ["six times"]}.get(value, [])
    return rng.choice(forms), value


def share(rng: Random) -> Drawn:
    """A share: `30 percent`, `15 pct`, `eighty percent`, `1 in 4`."""
    percent = rng.choice(range(5, 90, 5))
    forms = [f"{percent} percent", f"{percent} pct"] * 2
    forms += [f"{_TENS[percent]} percent"] if percent in _TENS else []
    forms += ["1 in 4"] if percent == 25 else []
    return rng.choice(forms), percent / 100


def clock(rng: Random) -> Drawn:
    """A time of the day: `14:00`, `6 pm`, `6:30 p.m.`, `twenty to six in the evening`."""
    hour, minute = rng.randrange(24), rng.choice((0, 0, 0, 5, 10, 15, 20, 30, 40, 45, 50))
    half, of_12 = ("am", "pm")[hour >= 12], hour % 12 or 12
    day = "in the morning" if hour < 12 else "in the evening"
    dotted = rng.choice((half, f"{half[0]}.m."))
    forms = [f"{hour:02}:{minute:02}", f"{hour:02}:{minute:02}"]
    forms.append(f"{of_12}:{minute:02} {dotted}" if minute else f"{of_12} {dotted}")
    if not minute and hour in {6, 8, 9, 18, 20, 21}:
        forms.append(f"{of_12} o'clock {day}")
    if minute == 20 and hour in {6, 9, 18, 21}:
        forms.append(f"twenty past {_HOURS[of_12]} {day}")
    if minute == 40 and hour in {5, 8, 17, 20}:
        forms.append(f"twenty to {_HOURS[of_12 + 1]} {day}")
    return rng.choice(forms), f"{hour:02}:{minute:02}"


def lasting(rng: Random) -> Drawn:
    """A duration in minutes: `20 minutes`, `45 mins`, `2 hours`, `3 hrs`, `ninety minutes`."""
    minutes = rng.choice(_LASTS_MIN)
    forms = [f"{minutes} minutes", f"{minutes} mins"]
    forms += [f"{_TENS[minutes]} minutes"] if minutes in _TENS else []
    if minutes % 60 == 0:
        hours = minutes // 60
        forms = ["an hour", "60 minutes"] if hours == 1 else [f"{hours} hours", f"{hours} hrs"]
    return rng.choice(forms), float(minutes)


def with_typo(word: str, rng: Random) -> str:
    """A word with two letters swapped, one left out, or one doubled."""
    at = rng.randrange(1, len(word) - 1)
    return rng.choice((
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    ))  # fmt: skip

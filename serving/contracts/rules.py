"""What follows from the rows of `Limits`: knobs, counters and rules by name, and their table.

Used by the lease, the queue and step control, tools, agents and metrics, by the evals' arms
(`fixed-edf+slack`) and the control loop's first decision.
`python -m serving.contracts.rules` prints the table of `docs/how/execution.md`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

from serving.contracts import Limits
from serving.contracts.limits import GUARANTEE_COUNTS, Knob
from serving.contracts.near_names import choices


def _knobs() -> dict[str, Knob]:
    knobs = {}
    for name, hint in get_type_hints(Limits, include_extras=True).items():
        kind, knob = get_args(hint)
        bounds = {}
        if kind is float:  # a clamped value keeps the field's type
            bounds = {"low": float(knob.low), "high": float(knob.high)}
        knobs[name] = replace(knob, name=name, kind=kind, **bounds)
    return knobs


def _rules() -> dict[str, dict[str, Any]]:
    rules: dict[str, dict[str, Any]] = {}
    for name, knob in KNOBS.items():
        if knob.rule:
            rules.setdefault(knob.rule, {})[name] = knob.on
    return rules


# By field of `Limits`; those with a tool of their own also by the tool's name.
KNOBS = _knobs()
BY_TOOL = {knob.tool: knob for knob in KNOBS.values() if knob.tool}
# What each rule sets when it is on, and what everything is set to when no rule acts.
RULES = _rules()
OFF: dict[str, Any] = {each.name: each.default for each in fields(Limits)}
# What each counter of a snapshot's `rules` counts.
COUNTERS = {name: text for knob in KNOBS.values() for name, text in knob.counts.items()}
COUNTERS |= GUARANTEE_COUNTS


def with_rules(limits: Limits, names: Iterable[str]) -> Limits:
    """`limits` with the named rules switched on.

    Raises:
        ValueError: a name is unknown; lists those there are.
    """
    for name in names:
        if name not in RULES:
            raise ValueError(f"rule {name!r} does not exist; {choices(name, RULES)}")
        limits = replace(limits, **RULES[name])
    return limits


def parse_rules(text: str) -> dict[str, bool]:
    """Which rules `+slack +serial -pace` switches on (True) and off (False); spaces are free.

    Raises:
        ValueError: a rule is unknown or named twice, or a sign is missing.
    """
    rules: dict[str, bool] = {}
    for part in re.findall(r"[+-]?[^\s+-]+|\S", text):
        name = part.lstrip("+-")
        if part[0] not in "+-" or not name:
            raise ValueError(f"{text!r}: {part!r}: a rule is written +NAME for on, -NAME for off")
        if name not in RULES:
            raise ValueError(f"rule {name!r} does not exist; {choices(name, RULES)}")
        if name in rules:
            raise ValueError(f"{text!r} names {name!r} twice")
        rules[name] = part[0] == "+"
    return rules


def format_rules(rules: Mapping[str, bool]) -> str:
    """As `parse_rules` reads it: `+slack +serial -pace`."""
    return " ".join(f"{'+' if on else '-'}{name}" for name, on in rules.items())


def rules_in_force(limits: Limits) -> list[str]:
    """Names of the rules that act under these limits, whoever set them, in whatever strength."""
    return [name for name, on in RULES.items() if any(getattr(limits, field) for field in on)]


def table() -> str:
    """Every knob as a Markdown table: limit, values, rule and its value, text, counters."""
    rows = ["| limit | values | rule | what it does | counter |", "|---|---|---|---|---|"]
    for name, knob in KNOBS.items():
        high = f"the server's `{knob.high}`" if isinstance(knob.high, str) else knob.high
        values = f"{knob.unit}, {knob.low} .. {high}" if knob.unit else "on, off"
        rule = knob.rule and f"{knob.rule}{'' if knob.on is True else f' = {knob.on}'}"
        rows.append(f"| `{name}` | {values} | {rule} | {knob.text} | {_told(knob.counts)} |")
    kept = "What holds under every decision: tenants' floors, and the ceiling on waiting."
    rows.append(f"| (guarantees) | always on |  | {kept} | {_told(GUARANTEE_COUNTS)} |")
    return "\n".join(rows)


def _told(counts: Mapping[str, str]) -> str:
    return "<br>".join(f"`{name}`: {text}" for name, text in counts.items()) or "none"


if __name__ == "__main__":
    print(table())

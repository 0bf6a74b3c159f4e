"""Which short-horizon rules are there, by name, and which limits switch each on?

Used by the evals' arms (`fixed-edf+slack`), by the control loop's first decision, and by those
who show what is in force.
The rules themselves act in `step_control` and `queue`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from serving.contracts import Limits
from serving.near_names import choices

RULES: dict[str, dict[str, Any]] = {
    "slack": {"follow_slack": True},
    "demote": {"demote_hopeless": True},
    "kv": {"kv_reserve": 0.05},
    "serial": {"max_partial_prefills": 1, "prefill_by_key": True},
    "balance": {"prefill_share": 0.35},
    "buckets": {"tenant_buckets": True},
    "triage": {"triage": True},
    "pace": {"pace_decodes": True},
    "victims": {"choose_victims": True},
}


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

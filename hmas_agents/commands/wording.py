"""How are times, shares, states and decisions put into words? Shared by `trace` and `why`."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hmas_agents.records import DecisionRecord
from serving.policies import format_policy

UNIX_FROM_S = 1e9  # engine times before it are virtual
AGO = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
SHORT_S = 1.0
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def clock(at_s: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Engine time: a date (UTC) where it is Unix time, plain seconds where it is virtual."""
    if at_s < UNIX_FROM_S:
        return f"{at_s:.1f} s"
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=at_s)).strftime(form)


def read_clock(text: str, newest_s: float | None) -> float:
    """Engine time of what a person writes.

    Args:
        text: `90.5` (seconds on the engine's clock), `2026-11-22T14:05` (UTC unless it says
            otherwise), or `15m` (s, m, h, d): so long before the newest decision.
        newest_s: engine time of the newest decision; None where there is none.

    Raises:
        ValueError: it is none of these; says what they are.
    """
    if (ago := AGO.fullmatch(text)) is not None:
        return (newest_s or 0.0) - float(ago[1]) * UNITS_S[ago[2]]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no time: write 15m (before the newest decision), "
            "2026-11-22T14:05 (UTC), or seconds on the engine's clock"
        ) from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where it is not known."""
    return "-" if share is None else f"{share:.1%}"


def seconds(value_s: float | None) -> str:
    """A duration, a short one in milliseconds; a dash where it never was."""
    if value_s is None:
        return "-"
    return f"{value_s * 1e3:.1f} ms" if abs(value_s) < SHORT_S else f"{value_s:.3f} s"


def decision_text(record: DecisionRecord) -> str:
    """What was decided, in a few words: `edf:kappa=10 > slide, set_token_budget`."""
    before = _policy(record.policy_before, record.snapshot_before)
    switch = record.chosen.get("switch_policy", record.chosen)  # a short tick names its calls
    policy = str(switch.get("policy") or "")
    after = _policy(policy, switch) if policy and "params" in switch else policy or before
    changed = [] if after in {before, record.policy_before} else [f"{before} > {after}"]
    calls = [call.tool for call in record.tool_calls if call.tool != "switch_policy"]
    return ", ".join(changed + calls) or f"keep {before}".strip()


def _policy(name: str, of: Mapping[str, Any]) -> str:
    return format_policy(name, of.get("params") or {})


def short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={short(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(short(item) for item in value) or "none"
    return "-" if value is None else str(value)


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """`key: old -> new` for whatever differs, nested keys with dots."""
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {short(old.get(key))} -> {short(value)}"
        for key, value in new.items()
        if old.get(key) != value
    ]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat

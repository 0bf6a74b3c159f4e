"""How are policies, rules, changes, decisions, times and shares written?

Every command, the page and the log of `hmas run` write them as this module does. A policy is
`edf` or `edf:kappa=10` (`serving.policies.parse_policy` reads it), rules are `+slack -pace`
(`serving.contracts.rules.parse_rules`), a change of policy is `fcfs > edf`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from hmas_agents.twin.prediction import NOT_PURSUED
from serving.contracts.rules import BY_TOOL, KNOBS, RULES, format_rules
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


def points(share: float) -> str:
    """A difference of two shares, in percentage points."""
    return f"{share * 100:+.1f} points"


def verdict_text(proposal: Proposal) -> str:
    """What the guardrails say of it, which is not yet that it wins."""
    return {"ok": "allowed", "": "-"}.get(proposal.verdict, proposal.verdict)


def judgement(proposal: Proposal) -> str:
    """The lead over what is in force, against what it must exceed.

    Empty where the twin compared nothing.
    """
    gain, margin, terms = proposal.gain, proposal.margin, proposal.terms
    if gain is None or margin is None:
        return ""
    if margin >= NOT_PURSUED:
        tried = f"{terms['futures']:.0f} futures" if terms else "few futures"
        return f"lead {points(gain)} on {tried}: not tried on all"
    if "caution" not in terms:  # of a ledger of an older version
        return f"lead {points(gain)}, must exceed {points(margin)}"
    lead = f"lead {points(gain)} on {terms['futures']:.0f} futures, must exceed {points(margin)}"
    if margin < 0:
        return f"{lead}: control starts with it"
    if terms["caution"] * terms["risk"] < margin:
        return f"{lead}: one request of those that count"
    return f"{lead}: {terms['caution']:.1f} times the {100 * terms['risk']:.2f} that it risks"


def against(proposal: Proposal, incumbent: Proposal) -> str:
    """The prediction of what is in force on the same futures: ` against 83.5% of edf:kappa=3`."""
    share = proposal.terms.get("against", incumbent.predicted)
    if proposal is incumbent or proposal.predicted is None or share is None:
        return ""
    return f" against {percent(share)} of {setting_text(incumbent)}"


def setting_text(proposal: Proposal) -> str:
    """A candidate in a few words: `edf:kappa=3 +pace -triage, token_budget 1024`."""
    rules, others = _changes_by_kind({}, proposal.limits)
    policy = format_policy(proposal.policy, proposal.params)
    return ", ".join([" ".join([policy, *rules]), *others])


def decision_text(record: DecisionRecord) -> str:
    """What was decided, in a few words: `fcfs > edf:kappa=3 +slack +triage, token_budget 512`.

    `keep edf` where nothing changed; `refused` follows what the engine or the arbiter refused.
    """
    before = _policy(record.policy_before, record.snapshot_before)
    switch = record.chosen.get("switch_policy", record.chosen)  # a short tick names its calls
    policy = str(switch.get("policy") or "")
    after = _policy(policy, switch) if policy and "params" in switch else policy or before
    switched = "" if after in {before, record.policy_before} else f"{before} > {after}"
    rules, others = [], []
    for call in record.tool_calls:
        text = call_text(call)
        if call.tool == "switch_policy":
            switched += " refused" if switched and _refused(call) else ""
            switched_rules, switched_others = _changes_by_kind(call.before, call.after)
            rules += switched_rules
            others += switched_others
        elif text[0] in "+-":
            rules.append(text)
        else:
            others.append(text)
    head = " ".join([switched, *rules]).strip()
    return ", ".join([head] * bool(head) + others) or f"keep {before}".strip()


def call_text(call: ToolCall) -> str:
    """What a tool call changes or would change: `+slack`, `token_budget 2048 > 512`, `edf`."""
    args = call.args
    if call.tool == "switch_policy":
        proposal = Proposal("twin", str(args.get("policy", "")), args.get("params") or {})
        proposal.limits = args.get("limits") or {}
        parts = [setting_text(proposal)]
    elif call.accepted and (parts := limit_changes(call.before, call.after)):
        pass
    elif call.tool == "switch_rule":
        parts = [format_rules({str(args.get("rule")): bool(args.get("on"))})]
    elif (knob := BY_TOOL.get(call.tool)) and knob.argument in args:
        parts = limit_changes({}, {knob.name: args[knob.argument]})
    else:
        parts = list(args.get("changes") or [call.tool])
    return ", ".join(parts) + (" refused" if _refused(call) else "")


def limit_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Limits that differ: a rule at its usual values as `+NAME`, or off as `-NAME`, first."""
    rules, others = _changes_by_kind(before, after)
    return rules + others


def _changes_by_kind(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """All rules in one text, if any; and a text for each other limit."""
    changed = {
        key: value
        for key, value in after.items()
        if key in KNOBS and before.get(key) != value
    }
    rules: dict[str, bool] = {}
    for name, usual in RULES.items():
        now = {key: after.get(key) for key in usual}
        if changed.keys() & usual.keys() and (now == usual or not any(now.values())):
            rules[name] = now == usual
            changed = {key: value for key, value in changed.items() if key not in usual}
    return [format_rules(rules)] * bool(rules), [
        f"{key} {short(before[key])} > {short(value)}" if key in before else f"{key} {short(value)}"
        for key, value in changed.items()
    ]


def _refused(call: ToolCall) -> bool:
    return not call.accepted and not call.reason.startswith("advise mode")


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

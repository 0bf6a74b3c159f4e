"""How does one decision read as a story? Called by `hmas trace show`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from hmas_agents.ledger.reader import StoredDecision
from hmas_agents.records import DecisionRecord, ToolCall

# Keys of a state that say most, in the order they are told.
SEEN_LONG = (
    "policy", "window_s", "arrivals", "rate_rps", "load", "attainment", "goodput_rps", "waiting",
    "queued_prefill_s", "alarms", "misses", "attainment_by_class", "attainment_by_tenant",
)  # fmt: skip
SEEN_SHORT = (
    "policy", "waiting", "running", "decoding", "prefilling", "queued_prefill_s", "p10_laxity_s",
    "decode_slack_p10_s", "kv_used", "kv_predicted_peak", "preemptions_per_s", "tpot_miss_share",
    "ttft_miss_share",
)  # fmt: skip
# What a decision may change in an engine's snapshot.
ENGINE_KEYS = ("epoch", "policy", "params", "limits", "controller_id")


def tell(stored: StoredDecision, console: Console) -> None:
    """Print the decision in the order in which it came about."""
    for title, lines in _chapters(stored):
        console.print(f"[bold]{title}[/]")
        for line in lines:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def clock(at_s: float) -> str:
    """Engine time: a date where it is Unix time, plain seconds where it is virtual."""
    if at_s < 1e9:
        return f"{at_s:.1f} s"
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def percent(share: float | None) -> str:
    """A share as a percentage; a dash where it is not known."""
    return "-" if share is None else f"{share:.1%}"


def _chapters(stored: StoredDecision) -> Iterator[tuple[str, list[str]]]:
    record = stored.record
    who = f"{record.horizon} horizon, {record.mode} mode, trigger {record.trigger}"
    yield f"Decision {stored.id} (run {stored.run_id})", [f"{clock(record.at_s)}  {who}"]
    keys = SEEN_LONG if record.horizon == "long" else SEEN_SHORT
    seen = [f"{key}: {_short(record.state[key])}" for key in keys if key in record.state]
    yield "What was seen", seen or ["nothing recorded"]
    if record.prompt_name or record.model or record.raw_replies:
        yield "What was asked", _asked(record)
        yield "What the model said", _said(record)
    if record.faults:
        yield "What went wrong", record.faults
    if record.proposals:
        yield (
            "What was proposed",
            [
                f"{p.source}: {p.policy} {_short(p.params)}  predicted {percent(p.predicted)}"
                f"  verdict: {p.verdict or '-'}"
                + (f"  confidence {p.confidence:g}" if p.confidence is not None else "")
                + (f"  ({p.reason})" if p.reason else "")
                for p in record.proposals
            ],
        )
    chosen = {key: value for key, value in record.chosen.items() if key != "ack"}
    lines = [f"{_short(chosen) or 'nothing'}  because: {record.reason or '-'}"]
    if ack := record.chosen.get("ack"):
        lines.append(f"engine acknowledged: {_short(ack)}")
    yield "What was chosen", lines
    for call in record.tool_calls:
        yield f"Tool call: {call.tool}", _called(call)
    if record.snapshot_before and record.snapshot_after:
        before, after = (
            {key: snapshot.get(key) for key in ENGINE_KEYS if key in snapshot}
            for snapshot in (record.snapshot_before, record.snapshot_after)
        )
        yield "The engine around it", _changes(before, after) or ["unchanged"]
    yield "What came of it", _result(record)


def _asked(record: DecisionRecord) -> list[str]:
    version = "?" if record.prompt_version is None else record.prompt_version
    lines = [
        f"prompt {record.prompt_name} v{version}, sha256 {record.prompt_sha256}",
        f"model {record.model or '?'}",
    ]
    return lines + [f"| {line}" for line in record.summary.splitlines()]


def _said(record: DecisionRecord) -> list[str]:
    took = "" if record.model_latency_s is None else f"after {record.model_latency_s:.2f} s"
    tokens = "" if record.model_tokens is None else f"{record.model_tokens} tokens"
    lines = [", ".join(part for part in (took, tokens) if part)] if took or tokens else []
    return lines + [f"raw: {reply}" for reply in record.raw_replies or ["(no reply)"]]


def _called(call: ToolCall) -> list[str]:
    verdict = "accepted" if call.accepted else "refused"
    lines = [f"arguments: {_short(call.args)}", f"{verdict}: {call.reason or '-'}"]
    lines += _changes(call.before, call.after) or ["limits: unchanged"]
    if call.ack:
        lines.append(f"engine acknowledged: {_short(call.ack)}")
    return lines


def _changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(after)
    return [
        f"{key}: {_short(old.get(key))} -> {_short(value)}"
        for key, value in new.items()
        if old.get(key) != value
    ]


def _result(record: DecisionRecord) -> list[str]:
    lines = [f"epoch {record.epoch_before} -> {record.epoch_after}"]
    lines.append(f"predicted attainment of the next window: {percent(record.predicted)}")
    if record.realised is None:
        return [*lines, "realised: not known yet (the window was not over)"]
    over = "" if record.realised_requests is None else f" over {record.realised_requests} requests"
    return [*lines, f"realised: {percent(record.realised)}{over}"]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _short(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_short(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_short(item) for item in value) or "none"
    return "-" if value is None else str(value)

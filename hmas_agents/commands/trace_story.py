"""How does one decision read as a story? Called by `hmas trace show`."""

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

from hmas_agents.forms import (
    against,
    changes,
    clock,
    decision_text,
    judgement,
    percent,
    seconds,
    setting_text,
    short,
    verdict_text,
)
from hmas_agents.ledger.reader import StoredDecision
from hmas_agents.records import DecisionRecord, Proposal, ToolCall

# Keys of a state that say most, in the order they are told.
SEEN_LONG = (
    "alarms", "policy", "window_s", "arrivals", "rate_rps", "load", "attainment", "goodput_rps",
    "waiting", "queued_prefill_s", "misses", "attainment_by_class", "attainment_by_tenant",
    "own_arrivals", "own_attainment",
)  # fmt: skip
SEEN_SHORT = (
    "policy", "waiting", "running", "decoding", "prefilling", "queued_prefill_s", "p10_laxity_s",
    "decode_slack_p10_s", "kv_used", "kv_predicted_peak", "preemptions_per_s", "tpot_miss_share",
    "ttft_miss_share",
)  # fmt: skip
# What a decision may change in an engine's snapshot.
ENGINE_KEYS = ("epoch", "policy", "params", "limits", "controller_id", "contract_epoch")


def tell(
    stored: StoredDecision,
    console: Console,
    *,
    label: str = "",
    with_prompt: bool = False,
    rolled_back_by: int | None = None,
) -> None:
    """Print the decision in the order in which it came about.

    Args:
        stored: the decision.
        console: where to.
        label: of its run.
        with_prompt: the messages as they were sent, too.
        rolled_back_by: the decision that took it back.
    """
    for title, lines in _chapters(stored, label, with_prompt, rolled_back_by):
        console.print(f"[bold]{title}[/]")
        for line in lines:
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)


def _chapters(
    stored: StoredDecision, label: str, with_prompt: bool, rolled_back_by: int | None
) -> Iterator[tuple[str, list[str]]]:
    record = stored.record
    who = f"{record.horizon} horizon, {record.mode} mode, trigger {record.trigger}"
    run = f"run {stored.run_id}" + (f", {escape(label)}" if label else "")
    yield f"Decision {stored.id} ({run})", [f"{clock(record.at_s)}  {who}"]
    yield "What was seen", _seen(record)
    if record.prompt_name or record.model or record.raw_replies:
        yield "What was asked", _asked(record, with_prompt)
        yield (
            "What was answered",
            [f"raw: {reply}" for reply in record.raw_replies or ["(no reply)"]],
        )
    if record.faults:
        yield "What went wrong", record.faults
    if record.proposals:
        yield "What was checked", checked(record)
    yield "What was done", _done(record)
    for call in record.tool_calls:
        yield f"Tool call: {call.tool}", _called(call)
    if record.snapshot_before and record.snapshot_after:
        before, after = (
            {key: snapshot.get(key) for key in ENGINE_KEYS if key in snapshot}
            for snapshot in (record.snapshot_before, record.snapshot_after)
        )
        yield "The engine around it", changes(before, after) or ["unchanged"]
    yield "What came of it", _result(record, rolled_back_by)


def _seen(record: DecisionRecord) -> list[str]:
    state = record.state
    keys: tuple[str, ...] = SEEN_LONG if record.horizon == "long" else SEEN_SHORT
    if not state.get("own_arrivals"):
        keys = tuple(key for key in keys if not key.startswith("own_"))
    lines = [f"{key}: {short(state[key])}" for key in keys if key in state]
    return lines or ["nothing recorded"]


def _asked(record: DecisionRecord, with_prompt: bool) -> list[str]:
    version = "?" if record.prompt_version is None else record.prompt_version
    lines = [
        f"prompt {record.prompt_name} v{version}, sha256 {record.prompt_sha256}",
        f"model {record.model or '?'}" + "".join(f", {cost}" for cost in _costs(record)),
        *(f"| {line}" for line in record.summary.splitlines()),
    ]
    if not with_prompt:
        return lines
    if not record.messages:
        return [*lines, "the prompt as sent was not recorded (a ledger of an older version)"]
    for message in record.messages:
        lines.append(f"{message.get('role', '?')}, as sent:")
        lines += [f"> {line}" for line in message.get("content", "").splitlines()]
    return lines


def _costs(record: DecisionRecord) -> Iterator[str]:
    tokens, prompt = record.model_tokens, record.model_prompt_tokens
    if record.model_latency_s is not None:
        yield f"answered after {record.model_latency_s:.2f} s"
    if tokens is not None:
        parts = "" if prompt is None else f" ({prompt} prompt, {tokens - prompt} reply)"
        yield f"{tokens} tokens{parts}"
    if record.model_step_share is not None:
        yield f"{percent(record.model_step_share)} of the engine's step time"


def checked(record: DecisionRecord) -> list[str]:
    """A line for each proposal, and one on the twin; also what `hmas fork` shows."""
    incumbent = next((p for p in record.proposals if p.source == "incumbent"), None)
    lines = [_proposal(p, incumbent) for p in record.proposals]
    if record.twin:
        lines.append(f"the twin: {_looked(record.twin)}")
    return lines


def _looked(twin: dict[str, Any]) -> str:
    """How much it looked at, and what it left out because forecasts were dear."""
    if "left_out" not in twin:  # of a ledger of an older version
        return short(twin)
    tried, left_out = twin["candidates"], twin["left_out"]
    settings = f"{tried} of {tried + left_out}" if left_out else f"{tried}"
    error = "" if twin["error"] is None else f", error so far {percent(twin['error'])}"
    return (
        f"{settings} settings on up to {twin['futures']} futures of {twin['horizon_s']:.0f} s, "
        f"{twin['forecasts']} forecasts, {seconds(twin['work_s'])} of work, "
        f"{seconds(twin['wall_s'])} of time{error}"
    )


def _proposal(proposal: Proposal, incumbent: Proposal | None) -> str:
    """One candidate: who, what, what the twin expects of it, and whether it may go live."""
    compared = against(proposal, incumbent) if incumbent is not None else ""
    predicted = _predicted(proposal.predicted, proposal.interval)
    parts = [
        f"{proposal.source}: {setting_text(proposal)}",
        f"predicted {predicted}{compared}" if proposal.predicted is not None else "not predicted",
        f"guardrails: {verdict_text(proposal)}" if proposal is not incumbent else "",
        judgement(proposal) if proposal is not incumbent else "",
        "" if proposal.confidence is None else f"confidence {proposal.confidence:g}",
        f"({proposal.reason})" if proposal.reason else "",
    ]
    return "  ".join(filter(None, parts))


def _predicted(mean: float | None, interval: tuple[float, ...]) -> str:
    if len(interval) != 2:
        return percent(mean)
    return f"{percent(mean)} [{percent(interval[0])}, {percent(interval[1])}]"


def _done(record: DecisionRecord) -> list[str]:
    source = record.chosen.get("source", "")
    by = f" (from {source})" if source not in {"", "incumbent"} else ""
    would = "" if record.mode == "act" else "would: "
    lines = [f"{would}{decision_text(record)}{by}  because: {record.reason or '-'}"]
    if ack := record.chosen.get("ack"):
        lines.append(f"engine acknowledged: {short(ack)}")
    return [*lines, f"epoch {record.epoch_before} -> {record.epoch_after}"]


def _called(call: ToolCall) -> list[str]:
    verdict = "accepted" if call.accepted else "refused"
    lines = [f"arguments: {short(call.args)}", f"{verdict}: {call.reason or '-'}"]
    lines += changes(call.before, call.after) or ["limits: unchanged"]
    if call.ack:
        lines.append(f"engine acknowledged: {short(call.ack)}")
    return lines


def _result(record: DecisionRecord, rolled_back_by: int | None) -> list[str]:
    known = (record.predicted_low, record.predicted_high)
    interval: tuple[Any, ...] = () if None in known else known
    lines = [f"predicted attainment of the next window: {_predicted(record.predicted, interval)}"]
    if record.realised is None:
        lines.append("realised: not known yet (the window was not over)")
    else:
        count = record.realised_requests
        over = "" if count is None else f" over {count} requests"
        place = ""
        if interval:
            low, high = interval
            inside = low <= record.realised <= high
            below = "below" if record.realised < low else "above"
            place = ", within the interval" if inside else f", {below} the interval"
        lines.append(f"realised: {percent(record.realised)}{over}{place}")
    if rolled_back_by is not None:
        lines.append(f"rolled back by decision {rolled_back_by}")
    return lines

"""What happened in a run, on one time axis? Goodput, attainment, changes, alarms, epochs.

Called by the server for the run page and for both sides of a comparison. Times in what
it returns are seconds since the run's start.
"""

from dataclasses import asdict
from typing import Any

from hmas_agents.ledger import Run
from hmas_agents.ui.decision_rows import DecisionRow
from hmas_agents.ui.ledgers import RunData
from hmas_agents.ui.outcome_bins import MAX_TENANTS, bin_width_s

# Limit changes closer together than this share of the axis are one mark with a number.
MARK_SPACING = 1 / 150


def bounds_s(data: RunData) -> tuple[float, float]:
    """Start and end of a run: its first and last decision or arrival."""
    times = [row.at_s for row in data.rows[:1] + data.rows[-1:]]
    if data.outcomes.count:
        times += [data.outcomes.first_s, data.outcomes.last_s]
    return (min(times), max(times)) if times else (0.0, 0.0)


def build_timeline(data: RunData, width_s: int | None = None) -> dict[str, Any]:
    """The run as the page draws it.

    Args:
        data: what is known of the run.
        width_s: of a bin; None chooses one by the run's length.
    """
    start_s, end_s = bounds_s(data)
    span_s = max(end_s - start_s, 1.0)
    outcomes = data.outcomes
    lines = min(len(outcomes.tenants), MAX_TENANTS)
    width_s = bin_width_s(span_s, outcomes.count, lines, width_s)
    provisional_s = outcomes.provisional_from_s
    return {
        "start_s": start_s,
        "span_s": span_s,
        "bin_s": width_s,
        "provisional_from_s": None if provisional_s is None else provisional_s - start_s,
        "series": [asdict(s) for s in outcomes.series(start_s, end_s, width_s)],
        "policies": _policies(data.rows, start_s, span_s),
        "epochs": [
            {"at_s": row.at_s - start_s, "epoch": row.epoch_after}
            for row in data.rows
            if row.epoch_after != row.epoch_before
        ],
        "marks": _marks(data.rows, start_s, span_s * MARK_SPACING),
        "alarms": _alarms(data.rows, start_s, span_s),
        "words": _words(data.rows, start_s, span_s),
    }


def summarise_run(key: str, run: Run, data: RunData) -> dict[str, Any]:
    """The run in figures: what the head of its page and a comparison show."""
    start_s, end_s = bounds_s(data)
    outcomes = data.outcomes
    attained = {
        name: counts.met.total() / counts.offered.total()
        for name, counts in outcomes.tenants.items()
    }
    judged = [row for row in data.rows if row.predicted is not None and row.realised is not None]
    errors = [abs((row.predicted or 0.0) - (row.realised or 0.0)) for row in judged]
    latencies = [row.model_latency_s for row in data.rows if row.model_latency_s is not None]
    kinds = [mark.kind for row in data.rows for mark in row.marks]
    return {
        "key": key,
        "label": run.label,
        "span_s": end_s - start_s,
        "offered": outcomes.count,
        "met": outcomes.met,
        "attainment": outcomes.met / outcomes.count if outcomes.count else None,
        "goodput_rps": outcomes.met / (end_s - start_s) if outcomes.count else None,
        "own_requests": outcomes.own.offered.total(),
        "own_met": outcomes.own.met.total(),
        "worst_tenant": min(attained.values(), default=None),
        "attainment_by_tenant": attained,
        "misses": dict(outcomes.misses),
        "decisions": len(data.rows),
        "long_decisions": sum(row.horizon == "long" for row in data.rows),
        "switches": kinds.count("switch"),
        "limit_changes": kinds.count("limits"),
        "refused": kinds.count("refused"),
        "advised": kinds.count("advised"),
        "faults": sum(row.faults for row in data.rows),
        "prediction_error": sum(errors) / len(errors) if errors else None,
        "predictions": len(errors),
        "model_latency_s": sum(latencies) / len(latencies) if latencies else None,
        "model_tokens": sum(row.model_tokens or 0 for row in data.rows),
    }


def _policies(rows: list[DecisionRow], start_s: float, span_s: float) -> list[dict[str, Any]]:
    """Spans of one policy, with the epochs that they cover."""
    spans: list[dict[str, Any]] = []

    def enter(at_s: float, policy: str, epoch: int) -> None:
        if spans and spans[-1]["policy"] == policy:
            spans[-1]["last_epoch"] = epoch
            return
        if spans:
            spans[-1]["to_s"] = at_s
        spans.append(
            {
                "from_s": at_s,
                "to_s": span_s,
                "policy": policy,
                "first_epoch": epoch,
                "last_epoch": epoch,
            }
        )

    for row in rows:
        enter(row.at_s - start_s, row.policy_before, row.epoch_before)
        enter(row.at_s - start_s, row.policy_after, row.epoch_after)
    return [span for span in spans if span["to_s"] > span["from_s"]]


def _marks(rows: list[DecisionRow], start_s: float, spacing_s: float) -> list[dict[str, Any]]:
    """Every change with its decision; only limit changes are ever merged."""
    marks: list[dict[str, Any]] = []
    policy = ""
    for row in rows:
        at_s = row.at_s - start_s
        if policy and row.policy_before != policy:
            text = f"{policy} > {row.policy_before}, not by a decision of this run"
            marks.append({"at_s": at_s, "kind": "outside", "texts": [text], "decision": row.id})
        policy = row.policy_after
        for mark in row.marks:
            last = next((m for m in reversed(marks) if m["kind"] == mark.kind), None)
            if mark.kind == "limits" and last and at_s - last["at_s"] < spacing_s:
                last["texts"].append(mark.text)
                continue
            marks.append(
                {
                    "at_s": at_s,
                    "kind": mark.kind,
                    "texts": [mark.text],
                    "decision": row.id,
                    "trigger": row.trigger,
                }
            )
    return marks


def _alarms(rows: list[DecisionRow], start_s: float, span_s: float) -> list[dict[str, Any]]:
    """Spans over which a drift alarm stood, as the long decisions saw it."""
    spans: list[dict[str, Any]] = []
    standing: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.horizon != "long":
            continue
        at_s = row.at_s - start_s
        for name in [name for name in standing if name not in row.alarms]:
            standing.pop(name)["to_s"] = at_s
        for name in row.alarms:
            if name not in standing:
                span = {"name": name, "from_s": at_s, "to_s": span_s, "decision": row.id}
                standing[name] = span
                spans.append(span)
    return spans


def _words(rows: list[DecisionRow], start_s: float, span_s: float) -> list[dict[str, Any]]:
    """Spans over which a change told in words was in force, as this run's controller began it."""
    spans: list[dict[str, Any]] = []
    standing: dict[tuple[int, str], dict[str, Any]] = {}
    said = {each.number: each.text for r in rows for each in r.told if each.state == "said"}
    for row, each in [(r, each) for r in rows for each in r.told if each.state != "said"]:
        at_s, key = row.at_s - start_s, (each.number, each.text)
        if key in standing:
            standing.pop(key)["to_s"] = at_s
        if each.state == "in force":
            span = {
                "told": each.number, "change": each.text, "text": said.get(each.number, ""),
                "from_s": at_s, "to_s": span_s, "decision": row.id,
            }  # fmt: skip
            standing[key] = span
            spans.append(span)
    return spans

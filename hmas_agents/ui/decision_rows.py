"""What does the list of decisions show of each? Rows without states, prompts and situations.

A ledger holds tens of thousands of decisions of many kilobytes: rows are read once, as
they come, and a decision is read in full only when somebody opens it.
"""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hmas_agents.forms import call_text, limit_changes
from hmas_agents.records import ToolCall
from serving.policies import format_policy

MarkKind = Literal["switch", "params", "limits", "advised", "refused"]

ADVISE = "advise"
# Columns of the second schema; a ledger of the first lacks them.
NEWER = ("predicted_low", "predicted_high", "model_prompt_tokens")
AS_STORED = (
    "id", "horizon", "at_s", "mode", "trigger", "epoch_before", "epoch_after", "policy_before",
    "predicted", "realised", "realised_requests", "model_tokens", "model_latency_s",
)  # fmt: skip
COLUMNS = (*AS_STORED, "policy", "faults", "json_extract(state, '$.alarms') AS alarms")


@dataclass(frozen=True, slots=True)
class Mark:
    """A change that a decision made, or would have made."""

    kind: MarkKind
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """What became of a change that was told in words, or (`said`) the words themselves."""

    number: int
    state: str
    text: str


@dataclass(slots=True)
class DecisionRow:
    """A decision in one line. `marks` is empty where nothing changed."""

    id: int
    horizon: str
    at_s: float
    mode: str
    trigger: str
    epoch_before: int
    epoch_after: int
    policy_before: str
    policy_after: str
    faults: int
    alarms: tuple[str, ...]
    marks: tuple[Mark, ...]
    told: tuple[Told, ...]
    predicted: float | None
    predicted_low: float | None
    predicted_high: float | None
    realised: float | None
    realised_requests: int | None
    model_tokens: int | None
    model_latency_s: float | None

    @property
    def changed(self) -> bool:
        """Whether the engine was told anything new."""
        return any(mark.kind in {"switch", "params", "limits"} for mark in self.marks)


def read_rows(connection: sqlite3.Connection, run_id: int, after_id: int) -> list[DecisionRow]:
    """A run's decisions with a greater id, oldest first. Raises sqlite3.Error."""
    have = {row["name"] for row in connection.execute("PRAGMA table_info(decisions)")}
    newer = [name if name in have else f"NULL AS {name}" for name in NEWER]
    rows = connection.execute(
        f"SELECT {', '.join((*COLUMNS, *newer))} FROM decisions "
        "WHERE run_id = ? AND id > ? ORDER BY id",
        (run_id, after_id),
    ).fetchall()
    calls: dict[int, list[sqlite3.Row]] = {}
    for call in connection.execute(
        "SELECT decision_id, tool, args, accepted, reason, before, after FROM tool_calls "
        "WHERE decision_id > ? AND decision_id IN (SELECT id FROM decisions WHERE run_id = ?) "
        "ORDER BY id",
        (after_id, run_id),
    ):
        calls.setdefault(call["decision_id"], []).append(call)
    return [_row(row, calls.get(row["id"], [])) for row in rows]


def _row(row: sqlite3.Row, calls: list[sqlite3.Row]) -> DecisionRow:
    accepted = [json.loads(call["after"]) for call in calls if call["accepted"]]
    policies = [after["policy"] for after in accepted if after.get("policy")]
    return DecisionRow(
        **{name: row[name] for name in AS_STORED},
        policy_after=policies[-1] if policies else row["policy_before"],
        faults=len(json.loads(row["faults"])),
        alarms=tuple(json.loads(row["alarms"] or "[]") or ()),
        marks=tuple(_marks(row, calls)),
        told=tuple(_told(calls)),
        predicted_low=row["predicted_low"],
        predicted_high=row["predicted_high"],
    )


def _marks(row: sqlite3.Row, calls: Iterable[sqlite3.Row]) -> Iterable[Mark]:
    for call in map(_call, calls):
        if not call.accepted:
            if row["mode"] == ADVISE:
                yield Mark("advised", f"{call_text(call)} (advised, not applied)")
            else:
                yield Mark("refused", f"{call_text(call)}: {call.reason}")
            continue
        old, new = (
            format_policy(str(side.get("policy") or ""), side.get("params") or {})
            for side in (call.before, call.after)
        )
        if old != new:
            is_switch = call.before.get("policy") != call.after.get("policy")
            yield Mark("switch" if is_switch else "params", f"{old} > {new}")
        if changed := limit_changes(call.before, call.after):
            yield Mark("limits", ", ".join(changed))


def _told(calls: Iterable[sqlite3.Row]) -> Iterable[Told]:
    for call in calls:
        args = json.loads(call["args"]) if call["tool"] in {"tell", "told"} else {}
        if call["tool"] == "tell":
            yield Told(args["told"], "said", args["text"])
        for text in args["changes"] if call["tool"] == "told" else []:
            state, _, change = text.partition(": ")
            yield Told(args["told"], state, change)


def _call(row: sqlite3.Row) -> ToolCall:
    sides = {side: json.loads(row[side]) for side in ("args", "before", "after")}
    return ToolCall(row["tool"], accepted=bool(row["accepted"]), reason=row["reason"], **sides)

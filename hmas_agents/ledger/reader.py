"""What was decided, and what came of it? Read by `hmas trace`, reports and evals."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from hmas_agents.ledger.schema import LedgerError, open_ledger
from hmas_agents.ledger.writer import JSON_FIELDS, PLAIN_FIELDS, to_json
from hmas_agents.records import DecisionRecord, Horizon, Proposal, ToolCall
from serving.contracts import Outcome, decode


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the controller. `first_s`, `last_s`: its first and last decision."""

    id: int
    label: str
    config: dict[str, Any]
    decisions: int
    outcomes: int
    first_s: float | None
    last_s: float | None


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision with its place in the ledger."""

    id: int
    run_id: int
    record: DecisionRecord


class LedgerReader:
    """A ledger opened read-only, also while a controller writes it. A context manager.

    Raises:
        LedgerError: when opened or read, where the file is no usable ledger.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = open_ledger(path, write=False)

    def __enter__(self) -> "LedgerReader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def list_runs(self) -> list[Run]:
        """Every run, oldest first."""
        rows = self._rows(
            "SELECT r.*, "
            "(SELECT count(*) FROM decisions WHERE run_id = r.id) AS decisions, "
            "(SELECT count(*) FROM outcomes WHERE run_id = r.id) AS outcomes, "
            "(SELECT min(at_s) FROM decisions WHERE run_id = r.id) AS first_s, "
            "(SELECT max(at_s) FROM decisions WHERE run_id = r.id) AS last_s "
            "FROM runs r ORDER BY r.id"
        )
        return [Run(**{**dict(row), "config": json.loads(row["config"])}) for row in rows]

    def list_decisions(
        self,
        run: int | None = None,
        horizon: Horizon | None = None,
        policy: str | None = None,
        limit: int | None = None,
    ) -> list[StoredDecision]:
        """Decisions in order of time; with `limit`, the newest that many.

        Args:
            run: of this run only.
            horizon: of this horizon only.
            policy: only those that chose this policy.
            limit: at most so many.
        """
        wanted = {"run_id": run, "horizon": horizon, "policy": policy}
        terms = [f"{column} = ?" for column, value in wanted.items() if value is not None]
        values = [value for value in wanted.values() if value is not None]
        where = f"WHERE {' AND '.join(terms)} " if terms else ""
        rows = self._rows(
            f"SELECT * FROM decisions {where}ORDER BY id DESC LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return [self._stored(row) for row in reversed(list(rows))]

    def get_decision(self, decision_id: int) -> StoredDecision:
        """One decision by id.

        Raises:
            LedgerError: there is none of that id.
        """
        rows = list(self._rows("SELECT * FROM decisions WHERE id = ?", (decision_id,)))
        if not rows:
            raise LedgerError(
                f"{self.path}: there is no decision {decision_id}; `hmas trace list` shows ids"
            )
        return self._stored(rows[0])

    def outcomes(self, run: int | None = None) -> Iterator[Outcome]:
        """Outcomes in the order they were recorded, of one run or of all."""
        where, values = ("", ()) if run is None else ("WHERE run_id = ? ", (run,))
        for row in self._rows(f"SELECT outcome FROM outcomes {where}ORDER BY id", values):
            yield decode(Outcome, json.loads(row["outcome"]))

    def export(self, run: int | None = None) -> Iterator[str]:
        """The ledger as JSON lines: `{"kind": "run" | "decision" | "outcome", ...}`."""
        for item in self.list_runs():
            if run is None or item.id == run:
                yield to_json({"kind": "run"} | asdict(item))
        for decision in self.list_decisions(run):
            yield to_json(
                {"kind": "decision", "id": decision.id, "run_id": decision.run_id}
                | asdict(decision.record)
            )
        where, values = ("", ()) if run is None else ("WHERE run_id = ? ", (run,))
        for row in self._rows(f"SELECT run_id, outcome FROM outcomes {where}ORDER BY id", values):
            outcome = json.loads(row["outcome"])
            yield to_json({"kind": "outcome", "run_id": row["run_id"]} | outcome)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[sqlite3.Row]:
        try:
            yield from self._connection.execute(query, values)
        except sqlite3.Error as error:
            raise LedgerError(f"{self.path}: cannot be read: {error}") from error

    def _stored(self, row: sqlite3.Row) -> StoredDecision:
        fields = {name: row[name] for name in PLAIN_FIELDS}
        fields |= {name: json.loads(row[name]) for name in JSON_FIELDS}
        fields["proposals"] = [Proposal(**item) for item in fields["proposals"]]
        calls = self._rows(
            "SELECT * FROM tool_calls WHERE decision_id = ? ORDER BY id", (row["id"],)
        )
        fields["tool_calls"] = [
            ToolCall(
                tool=call["tool"],
                args=json.loads(call["args"]),
                accepted=bool(call["accepted"]),
                reason=call["reason"],
                before=json.loads(call["before"]),
                after=json.loads(call["after"]),
                ack=json.loads(call["ack"]),
            )
            for call in calls
        ]
        return StoredDecision(row["id"], row["run_id"], DecisionRecord(**fields))

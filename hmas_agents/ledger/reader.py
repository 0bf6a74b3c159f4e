"""What was decided, and what came of it? Read by `hmas trace`, reports and evals."""

import json
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hmas_agents.config import Config
from hmas_agents.ledger.schema import LedgerError, open_ledger
from hmas_agents.ledger.writer import JSON_FIELDS, PLAIN_FIELDS, to_json
from hmas_agents.records import DecisionRecord, Horizon, Proposal, ToolCall
from hmas_agents.twin.prediction import Past
from serving.contracts import Outcome, decode

# Something took effect, or would have in advise mode (`tools.session` gives that reason).
CHANGED = (
    "EXISTS (SELECT 1 FROM tool_calls WHERE decision_id = decisions.id "
    "AND (accepted OR reason LIKE 'advise mode%'))"
)


MAX_ID = 2**63 - 1  # SQLite has no larger one


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

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def list_runs(self) -> list[Run]:
        """Every run, oldest first."""
        rows = self.rows(
            "SELECT r.*, "
            "(SELECT count(*) FROM decisions WHERE run_id = r.id) AS decisions, "
            "(SELECT count(*) FROM outcomes WHERE run_id = r.id) AS outcomes, "
            "(SELECT min(at_s) FROM decisions WHERE run_id = r.id) AS first_s, "
            "(SELECT max(at_s) FROM decisions WHERE run_id = r.id) AS last_s "
            "FROM runs r ORDER BY r.id"
        )
        return [Run(**{**dict(row), "config": json.loads(row["config"])}) for row in rows]

    def get_run(self, run_id: int) -> Run:
        """One run by id.

        Raises:
            LedgerError: there is none of that id; says which there are.
        """
        runs = {run.id: run for run in self.list_runs()}
        if run_id not in runs:
            known = ", ".join(map(str, runs)) or "none"
            raise LedgerError(f"{self.path}: there is no run {run_id}; there are {known}")
        return runs[run_id]

    def check(self) -> None:
        """Read the whole file. Raises LedgerError where a part of it is damaged."""
        found = next(self.rows("PRAGMA quick_check(1)"))[0]
        if found != "ok":
            raise LedgerError(f"{self.path}: damaged ({found}); move it away or name another file")

    def list_decisions(
        self,
        run: int | None = None,
        horizon: Horizon | None = None,
        policy: str | None = None,
        limit: int | None = None,
        *,
        trigger: str | None = None,
        changed: bool = False,
        faults: bool = False,
        since_s: float | None = None,
        until_s: float | None = None,
    ) -> list[StoredDecision]:
        """Decisions in order of time; with `limit`, the newest that many.

        Args:
            run: of this run only.
            horizon: of this horizon only.
            policy: only those that chose this policy.
            limit: at most so many.
            trigger: only those with this trigger, or with this alarm among others.
            changed: only those that changed something, or would have in advise mode.
            faults: only those in which something went wrong.
            since_s: decided then or later, on the engine's clock.
            until_s: decided then or before.
        """
        wanted = {
            "run_id = ?": run,
            "horizon = ?": horizon,
            "policy = ?": policy,
            "instr(',' || trigger || ',', ',' || ? || ',') > 0": trigger,
            "at_s >= ?": since_s,
            "at_s <= ?": until_s,
        }
        terms = [term for term, value in wanted.items() if value is not None]
        values = [value for value in wanted.values() if value is not None]
        terms += [CHANGED] * changed + ["faults != '[]'"] * faults
        where = f"WHERE {' AND '.join(terms)} " if terms else ""
        rows = self.rows(
            f"SELECT * FROM decisions {where}ORDER BY id DESC LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return [self._stored(row) for row in reversed(list(rows))]

    def last_decision_before(self, run: int, at_s: float) -> StoredDecision | None:
        """The newest decision of a run made before this time, of either horizon."""
        rows = self.rows(
            "SELECT * FROM decisions WHERE run_id = ? AND at_s < ? ORDER BY id DESC LIMIT 1",
            (run, at_s),
        )
        return next((self._stored(row) for row in rows), None)

    def newest_decision_s(self, run: int | None = None) -> float | None:
        """Engine time of the newest decision, of one run or of all; None without any."""
        query = "SELECT at_s FROM decisions WHERE ?1 IS NULL OR run_id = ?1 ORDER BY id DESC"
        return next((row["at_s"] for row in self.rows(f"{query} LIMIT 1", (run,))), None)

    def rolled_back_by(self, stored: StoredDecision) -> int | None:
        """The decision that took this switch of policy back; None where none did."""
        if stored.record.horizon != "long" or not stored.record.chosen.get("applied"):
            return None
        rows = self.rows(
            f"SELECT id, trigger FROM decisions WHERE run_id = ? AND horizon = 'long' "
            f"AND id > ? AND {CHANGED} ORDER BY id LIMIT 1",
            (stored.run_id, stored.id),
        )
        return next((row["id"] for row in rows if row["trigger"] == "rollback"), None)

    def get_decision(self, decision_id: int) -> StoredDecision:
        """One decision by id.

        Raises:
            LedgerError: there is none of that id.
        """
        query = "SELECT * FROM decisions WHERE id = ?"
        rows = list(self.rows(query, (decision_id,))) if decision_id <= MAX_ID else []
        if not rows:
            raise LedgerError(
                f"{self.path}: there is no decision {decision_id}; `hmas trace list` shows ids"
            )
        return self._stored(rows[0])

    def predictions(self, limit: int) -> list[Past]:
        """What came of the newest predictions that concerned 30 requests, oldest first."""
        rows = self.rows(
            "SELECT predicted, json_extract(twin, '$.spread') AS spread, realised FROM decisions "
            "WHERE predicted IS NOT NULL AND spread > 0 AND realised IS NOT NULL "
            "AND realised_requests >= 30 ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Past(*row) for row in reversed(list(rows))]

    def outcomes(self, run: int | None = None) -> Iterator[Outcome]:
        """Outcomes in the order they were recorded, of one run or of all."""
        where, values = ("", ()) if run is None else ("WHERE run_id = ? ", (run,))
        for row in self.rows(f"SELECT outcome FROM outcomes {where}ORDER BY id", values):
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
        for row in self.rows(f"SELECT run_id, outcome FROM outcomes {where}ORDER BY id", values):
            outcome = json.loads(row["outcome"])
            yield to_json({"kind": "outcome", "run_id": row["run_id"]} | outcome)

    def rows(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[sqlite3.Row]:
        """The rows of a query, for the modules of this package."""
        try:
            yield from self._connection.execute(query, values)
        except (sqlite3.Error, OverflowError) as error:  # a number that is no id can be of any size
            raise LedgerError(f"{self.path}: cannot be read: {error}") from error

    def _stored(self, row: sqlite3.Row) -> StoredDecision:
        stored = set(row.keys())  # an older ledger lacks columns: the record's defaults stand
        fields = {name: row[name] for name in PLAIN_FIELDS if name in stored}
        fields |= {name: json.loads(row[name]) for name in JSON_FIELDS if name in stored}
        fields["proposals"] = [
            Proposal(**{**item, "interval": tuple(item.get("interval", ()))})
            for item in fields["proposals"]
        ]
        packed = row["situation"] if "situation" in stored else None
        fields["situation"] = json.loads(zlib.decompress(packed)) if packed else {}
        calls = self.rows(
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


def config_of(run: Run, path: Path) -> Config:
    """What a run of the ledger at `path` was configured to do.

    Raises:
        LedgerError: another version of H-MAS wrote it; names the first key that differs.
    """
    try:
        return Config.model_validate(run.config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise LedgerError(
            f"{path}: run {run.id}: config.{key}: {first['msg']}: it was recorded by another "
            "version of H-MAS"
        ) from error

"""Where do decisions go? The ledger's only writer, called by the control loop.

Nothing here raises into the loop: a full or locked disk costs records, not control.
"""

import contextlib
import json
import logging
import math
import sqlite3
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hmas_agents.config import Config
from hmas_agents.ledger.schema import open_ledger
from hmas_agents.records import DecisionRecord, Proposal, ToolCall
from serving.contracts import Outcome, encode

logger = logging.getLogger(__name__)

# Fields of a DecisionRecord stored as JSON, and those stored as they are.
JSON_FIELDS = (
    "state", "messages", "raw_replies", "faults", "proposals", "chosen", "snapshot_before",
    "snapshot_after", "twin",
)  # fmt: skip
PLAIN_FIELDS = (
    "horizon", "at_s", "mode", "trigger", "epoch_before", "epoch_after", "policy_before",
    "summary", "prompt_name", "prompt_version", "prompt_sha256", "model", "model_latency_s",
    "model_tokens", "model_prompt_tokens", "model_step_share", "reason", "predicted",
    "predicted_low", "predicted_high", "realised", "realised_requests",
)  # fmt: skip

_OUTCOME = TypeAdapter(Outcome)

T = TypeVar("T")
HALF_DONE = "left_half_done"  # the fault of a decision whose outcome nobody wrote
_TO_DISK_S = 30.0  # between two moves of the write-ahead log into the database


class Ledger:
    """One run's decisions and outcomes, in a bounded SQLite file. Thread-safe.

    `dropped` counts writes that the disk refused; the first is logged.

    Args:
        label, config: of the run that begins.
        joins: write into the newest run instead, if there is one.

    Raises:
        LedgerError: at construction, when the file cannot be used.
    """

    def __init__(
        self, path: Path, *, label: str = "", config: Config, joins: bool = False
    ) -> None:
        self.path = path
        self.dropped = 0
        self._limits, self._url = config.ledger, config.engine.url
        self._lock = threading.Lock()
        self._connection = open_ledger(path, write=True)
        # A commit to the write-ahead log does not wait for the disk; moving the log into the
        # database does, on a busy disk for many seconds, and by default the commit that fills
        # the log pays for it. Here a thread does it instead.
        self._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self._closing = threading.Event()
        self._to_disk = threading.Thread(target=self._move_log, name="hmas-ledger", daemon=True)
        self._to_disk.start()
        self.run_id = self._write(
            lambda cursor: (joins and _newest_run(cursor)) or _start_run(cursor, label, config), 0
        )

    def record_decision(self, record: DecisionRecord) -> int:
        """Store a decision; its id, or 0 when the disk refused."""
        row = {"run_id": self.run_id, "policy": str(record.chosen.get("policy", ""))}
        row |= {name: _plain(getattr(record, name)) for name in PLAIN_FIELDS}
        values = {name: getattr(record, name) for name in JSON_FIELDS}
        values["proposals"] = [_row_of(proposal) for proposal in record.proposals]
        row |= {name: to_json(value) for name, value in values.items()}
        # A window of requests is long, and much of it repeats.
        row["situation"] = zlib.compress(to_json(record.situation).encode())

        def insert(cursor: sqlite3.Cursor) -> int:
            cursor.execute(_insert_into("decisions", row), row)
            decision_id = cursor.lastrowid or 0
            for call in record.tool_calls:
                values = {
                    key: to_json(value) if isinstance(value, dict) else value
                    for key, value in _row_of(call).items()
                } | {"decision_id": decision_id}
                cursor.execute(_insert_into("tool_calls", values), values)
            _keep_newest(cursor, "decisions", self._limits.max_decisions)
            return decision_id

        return self._write(insert, 0)

    def set_realised(self, decision_id: int, attainment: float, requests: int) -> None:
        """Add what came of a decision: attainment of the window after it."""
        self._write(
            lambda cursor: cursor.execute(
                "UPDATE decisions SET realised = ?, realised_requests = ? WHERE id = ?",
                (_plain(attainment), requests, decision_id),
            ),
            None,
        )

    def mark_half_done(self) -> list[int]:
        """Mark what the last acting run on this engine left without an outcome; the ids.

        Called by who owns the engine now, so that run is over. One that ended well has settled
        its decisions, if only as of no request.
        """
        fault = f"{HALF_DONE}: the controller ended before what came of this was known"
        last = (
            "SELECT max(id) FROM runs WHERE id < :run_id "
            "AND json_extract(config, '$.control.mode') = 'act' "
            "AND json_extract(config, '$.engine.url') = :url"
        )

        def mark(cursor: sqlite3.Cursor) -> list[int]:
            rows = cursor.execute(
                "UPDATE decisions SET faults = json_insert(faults, '$[#]', :fault) "
                f"WHERE run_id = ({last}) AND (horizon = 'long' OR trigger = 'start') "
                "AND realised_requests IS NULL AND instr(faults, :code) = 0 RETURNING id",
                {"run_id": self.run_id, "url": self._url, "fault": fault, "code": HALF_DONE},
            )
            return sorted(row["id"] for row in rows.fetchall())

        return self._write(mark, [])

    def record_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Store outcomes; one that is stored already is left alone."""
        if not outcomes:
            return
        rows = [(self.run_id, o.seq, o.request_id, o.epoch, _outcome_text(o)) for o in outcomes]

        def insert(cursor: sqlite3.Cursor) -> None:
            cursor.executemany(
                "INSERT OR IGNORE INTO outcomes (run_id, seq, request_id, epoch, outcome) "
                "VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            _keep_newest(cursor, "outcomes", self._limits.max_outcomes)

        self._write(insert, None)

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        self._closing.set()
        self._to_disk.join()
        with self._lock:
            self._connection.close()

    def _move_log(self) -> None:
        """Passive checkpoints, which block no writer, until the ledger closes."""
        while not self._closing.wait(_TO_DISK_S):
            # A disk that refuses is for the writer to report; the log keeps the data.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(
                sqlite3.connect(self.path, timeout=1.0)
            ) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _write(self, statement: Callable[[sqlite3.Cursor], T], refused: T) -> T:
        """Run one transaction; `refused` when the disk does not take it."""
        try:
            with self._lock, self._connection:
                return statement(self._connection.cursor())
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            self.dropped += 1
            if self.dropped == 1:
                logger.warning(
                    "%s: the ledger does not take writes (%s); decisions go on unrecorded",
                    self.path,
                    error,
                )
            return refused


def to_json(value: Any) -> str:
    """JSON text; NaN and infinities become null, unknown objects their text.

    A lone surrogate, which a client's tenant name may have, becomes a question mark.
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, default=str)
    except ValueError:
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=str)
    return text.encode(errors="replace").decode()


def _outcome_text(outcome: Outcome) -> str:
    """As `to_json` has it, faster: hundreds come in a tick."""
    try:
        return _OUTCOME.dump_json(outcome, warnings=False).decode()
    except ValueError:
        return to_json(encode(outcome))


def _row_of(part: Proposal | ToolCall) -> dict[str, Any]:
    """Its fields, not copied as `asdict` would: a tick waits for this."""
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _start_run(cursor: sqlite3.Cursor, label: str, config: Config) -> int:
    # Runs that rotation has emptied are of no use to anyone.
    cursor.execute(
        "DELETE FROM runs WHERE id NOT IN (SELECT run_id FROM decisions) "
        "AND id NOT IN (SELECT run_id FROM outcomes)"
    )
    values = (label, config.model_dump_json())
    cursor.execute("INSERT INTO runs (label, config) VALUES (?, ?)", values)
    return cursor.lastrowid or 0


def _newest_run(cursor: sqlite3.Cursor) -> int:
    return int(cursor.execute("SELECT max(id) FROM runs").fetchone()[0] or 0)


def _insert_into(table: str, row: dict[str, Any]) -> str:
    return f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join(f':{k}' for k in row)})"


def _keep_newest(cursor: sqlite3.Cursor, table: str, count: int) -> None:
    """Ids only grow and the oldest go first, so the newest `count` are a range of ids."""
    cursor.execute(f"DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?", (count,))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return _plain(value)

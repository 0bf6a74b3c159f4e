"""What was told in words, and what became of each change? The file that outlives every process.

`hmas tell` writes texts, answers and approvals, the controller writes what it made of them. It lies
beside the ledger; the checkpoints of the graph `intent` are in it, too. Whoever may write it may
change what the engine does, so it is refused where others may.
"""

import json
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from hmas_agents.intent.change import Change
from serving.contracts import Contract

# Of a text: nobody has answered yet; somebody has; it was not clear, or cannot be done.
ToldState = Literal["waiting", "approved", "declined", "unclear", "refused"]
# Of a change of an approved text, as the controller wrote it last; "" before it has seen it.
ChangeState = Literal["", "ahead", "in force", "not applied", "ended"]

_TABLES = """
CREATE TABLE IF NOT EXISTS told (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, by TEXT NOT NULL, text TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting', note TEXT NOT NULL DEFAULT '', revoked_s REAL
);
CREATE TABLE IF NOT EXISTS changes (
  told INTEGER NOT NULL REFERENCES told (id), number INTEGER NOT NULL, change TEXT NOT NULL,
  from_s REAL NOT NULL, until_s REAL, state TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '',
  baseline_rps REAL, PRIMARY KEY (told, number)
);
CREATE TABLE IF NOT EXISTS contract (
  only INTEGER PRIMARY KEY CHECK (only = 1), base TEXT NOT NULL, applied TEXT NOT NULL
);
"""


class ToldError(RuntimeError):
    """The file of what was told cannot be used; names it and says what to do."""


@dataclass(frozen=True, slots=True)
class ToldChange:
    """One change of an approved text.

    Attributes:
        told, number: of the text, and its place in it.
        from_s, until_s: on the engine's clock; None holds until it is revoked.
        baseline_rps: requests per second of whom an `expect` is about, when it began.
    """

    told: int
    number: int
    change: Change
    from_s: float
    until_s: float | None
    state: ChangeState = ""
    note: str = ""
    baseline_rps: float | None = None
    revoked_s: float | None = None

    def holds(self, now_s: float) -> bool:
        """Whether it is in its time."""
        return self.from_s <= now_s and not self.is_over(now_s)

    def is_over(self, now_s: float) -> bool:
        """Whether its time has passed, or somebody took it back."""
        return self.revoked_s is not None or (self.until_s is not None and self.until_s <= now_s)


@dataclass(frozen=True, slots=True)
class Told:
    """One text, and its changes where they were approved."""

    id: int
    at_s: float
    by: str
    text: str
    state: ToldState
    note: str
    revoked_s: float | None
    changes: tuple[ToldChange, ...] = ()


def told_path(ledger: Path) -> Path:
    """Where what was told lies, beside a ledger."""
    return ledger.with_suffix(".told.sqlite")


class ToldStore:
    """The file, opened. Thread-safe; a context manager.

    Raises:
        ToldError: when opened or used, where it is missing (and not to be made), broken, or may be
            written by others.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            if create:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not path.exists():
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            _check_owner(path)
            # Statements commit by themselves: two processes write short rows.
            self.connection = sqlite3.connect(
                path, timeout=5.0, check_same_thread=False, isolation_level=None
            )
            self.connection.row_factory = sqlite3.Row
            self.connection.execute("PRAGMA journal_mode = WAL")
            self.connection.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise ToldError(f"{path}: cannot be opened: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def add(self, at_s: float, by: str, text: str) -> int:
        """A text that nobody has answered yet; its number."""
        with self._statement() as run:
            row = run("INSERT INTO told (at_s, by, text) VALUES (?, ?, ?)", at_s, by, text)
            return row.lastrowid or 0

    def settle(self, told: int, state: ToldState, note: str = "") -> None:
        """Write what became of a text."""
        with self._statement() as run:
            run("UPDATE told SET state = ?, note = ? WHERE id = ?", state, note, told)

    def approve(self, told: int, changes: list[ToldChange], note: str = "") -> None:
        """Put a text's changes where the controller finds them. Twice is as good as once."""
        with self._statement() as run:
            run("BEGIN IMMEDIATE")
            for each in changes:
                run(
                    "INSERT OR IGNORE INTO changes (told, number, change, from_s, until_s) "
                    "VALUES (?, ?, ?, ?, ?)",
                    told, each.number, _json(each.change), each.from_s, each.until_s,
                )  # fmt: skip
            run("UPDATE told SET state = 'approved', note = ? WHERE id = ?", note, told)
            run("COMMIT")

    def revoke(self, told: int, now_s: float) -> None:
        """Take an approved text back."""
        with self._statement() as run:
            run("UPDATE told SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL", now_s, told)

    def mark(self, change: ToldChange, state: ChangeState, note: str = "") -> None:
        """Write what the controller made of a change."""
        with self._statement() as run:
            run(
                "UPDATE changes SET state = ?, note = ?, baseline_rps = ? "
                "WHERE told = ? AND number = ?",
                state, note, change.baseline_rps, change.told, change.number,
            )  # fmt: skip

    def reword(self, told: int, text: str) -> None:
        """The text, as somebody has put it better."""
        with self._statement() as run:
            run("UPDATE told SET text = ? WHERE id = ?", text, told)

    def get(self, told: int) -> Told:
        """One text. Raises ToldError where there is none of that number."""
        found = self._texts("WHERE id = ?", told) if told < 2**63 else []
        if not found:
            raise ToldError(f"{self.path}: nothing was told as number {told}; `hmas told` lists")
        return found[0]

    def texts(self, most: int) -> list[Told]:
        """The newest texts, oldest first."""
        return self._texts("ORDER BY id DESC LIMIT ?", most)[::-1]

    def open_changes(self) -> list[ToldChange]:
        """Approved changes that have not ended, in the order in which they were told."""
        return self._changes("WHERE changes.state != 'ended'")

    def kept_contract(self) -> tuple[Contract, Contract] | None:
        """The contract without words, and the one that words made of it; None without any."""
        with self._statement() as run:
            row = run("SELECT base, applied FROM contract").fetchone()
        if row is None:
            return None
        return Contract.model_validate_json(row[0]), Contract.model_validate_json(row[1])

    def keep_contract(self, kept: tuple[Contract, Contract] | None) -> None:
        """Remember the two, or forget them."""
        with self._statement() as run:
            if kept is None:
                run("DELETE FROM contract")
                return
            texts = (each.model_dump_json() for each in kept)
            run("INSERT OR REPLACE INTO contract VALUES (1, ?, ?)", *texts)

    def _texts(self, which: str, *values: object) -> list[Told]:
        with self._statement() as run:
            rows = run(f"SELECT * FROM told {which}", *values).fetchall()
        return [
            Told(**dict(row), changes=tuple(self._changes("WHERE told = ?", row["id"])))
            for row in rows
        ]

    def _changes(self, which: str, *values: object) -> list[ToldChange]:
        with self._statement() as run:
            rows = run(
                "SELECT changes.*, told.revoked_s FROM changes JOIN told ON told.id = changes.told "
                f"{which} ORDER BY told, number",
                *values,
            ).fetchall()
        return [
            ToldChange(**{**dict(row), "change": Change.model_validate_json(row["change"])})
            for row in rows
        ]

    @contextmanager
    def _statement(self) -> Iterator[Any]:
        def run(sql: str, *values: object) -> sqlite3.Cursor:
            return self.connection.execute(sql, values)

        try:
            with self._lock:
                yield run
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise ToldError(f"{self.path}: cannot be used: {error}") from error


def _check_owner(path: Path) -> None:
    """Refuse a file that another user of the machine may have written."""
    found = path.stat()
    if found.st_uid not in {os.geteuid(), 0}:
        raise ToldError(f"{path}: is not used: it belongs to another user (uid {found.st_uid})")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ToldError(
            f"{path}: is not used: others may write it (mode {found.st_mode & 0o777:o}), and who "
            "writes it changes what the engine does; look what is in it, then chmod go-w it"
        )


def _json(change: Change) -> str:
    return json.dumps(change.model_dump(by_alias=True, exclude_none=True))

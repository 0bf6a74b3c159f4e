"""How is the ledger laid out on disk? Opened by the writer and the reader.

One row per decision; what is queried has a column, what is only shown is JSON. A
file is ours when its `application_id` says so, and its `user_version` is the schema.
"""

import sqlite3
from pathlib import Path

APPLICATION_ID = 0x484D4153  # "HMAS"
SCHEMA_VERSION = 2

DDL = """
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  label TEXT NOT NULL,
  config TEXT NOT NULL
);
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER NOT NULL REFERENCES runs (id),
  horizon TEXT NOT NULL,
  at_s REAL NOT NULL,
  mode TEXT NOT NULL,
  trigger TEXT NOT NULL,
  state TEXT NOT NULL,
  epoch_before INTEGER NOT NULL,
  epoch_after INTEGER NOT NULL,
  policy_before TEXT NOT NULL,
  policy TEXT NOT NULL,
  summary TEXT NOT NULL,
  prompt_name TEXT NOT NULL,
  prompt_version INTEGER,
  prompt_sha256 TEXT NOT NULL,
  model TEXT NOT NULL,
  model_latency_s REAL,
  model_tokens INTEGER,
  raw_replies TEXT NOT NULL,
  faults TEXT NOT NULL,
  proposals TEXT NOT NULL,
  chosen TEXT NOT NULL,
  reason TEXT NOT NULL,
  snapshot_before TEXT NOT NULL,
  snapshot_after TEXT NOT NULL,
  predicted REAL,
  realised REAL,
  realised_requests INTEGER
);
CREATE INDEX decisions_by_run ON decisions (run_id, horizon, id);
CREATE TABLE tool_calls (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  decision_id INTEGER NOT NULL REFERENCES decisions (id) ON DELETE CASCADE,
  tool TEXT NOT NULL,
  args TEXT NOT NULL,
  accepted INTEGER NOT NULL,
  reason TEXT NOT NULL,
  before TEXT NOT NULL,
  after TEXT NOT NULL,
  ack TEXT NOT NULL
);
CREATE INDEX tool_calls_by_decision ON tool_calls (decision_id);
CREATE TABLE outcomes (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER NOT NULL REFERENCES runs (id),
  seq INTEGER NOT NULL,
  request_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  UNIQUE (run_id, seq, request_id)
);
"""


# Columns of schema 2, in a ledger of either age: the first one's rows get the defaults.
ADDED_IN_2 = """
ALTER TABLE decisions ADD COLUMN model_prompt_tokens INTEGER;
ALTER TABLE decisions ADD COLUMN model_step_share REAL;
ALTER TABLE decisions ADD COLUMN messages TEXT NOT NULL DEFAULT '[]';
ALTER TABLE decisions ADD COLUMN predicted_low REAL;
ALTER TABLE decisions ADD COLUMN predicted_high REAL;
ALTER TABLE decisions ADD COLUMN twin TEXT NOT NULL DEFAULT '{}';
ALTER TABLE decisions ADD COLUMN situation BLOB;
"""


class LedgerError(RuntimeError):
    """A ledger that cannot be used; names the file and says what to do."""


def open_ledger(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to the ledger at `path`; with `write`, created where there is none.

    Raises:
        LedgerError: missing, unreadable, no ledger, or of a newer schema.
    """
    try:
        if write:
            # It tells what clients sent and when: for its owner only. SQLite gives the files beside
            # it (-wal, -shm) the same mode. What is there already keeps what it has.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                path.touch(mode=0o600)
        elif path.is_dir():
            raise LedgerError(f"{path}: is a folder; name the ledger in it")
        elif not path.is_file():
            raise LedgerError(f"{path}: no ledger there; `hmas run` writes one")
        uri = f"{path.resolve().as_uri()}?mode={'rwc' if write else 'ro'}"
        connection = sqlite3.connect(uri, uri=True, timeout=1.0, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"{path}: cannot be opened: {error}") from error
    try:
        _check(connection, path, write=write)
    except sqlite3.Error as error:
        connection.close()
        raise LedgerError(
            f"{path}: not a usable ledger: {error}; move it away or name another file"
        ) from error
    except LedgerError:
        connection.close()
        raise
    connection.row_factory = sqlite3.Row
    return connection


def _check(connection: sqlite3.Connection, path: Path, *, write: bool) -> None:
    """Make sure that the file is a ledger of this schema, or make it one."""
    is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if is_empty and write:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {DDL} {ADDED_IN_2} PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    elif is_empty:
        raise LedgerError(
            f"{path}: empty; a controller that has just begun fills it in a moment, or else "
            "name another file"
        )
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise LedgerError(f"{path}: a database, but not a ledger of H-MAS; name another file")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise LedgerError(
            f"{path}: schema {version} is newer than this H-MAS reads ({SCHEMA_VERSION}); "
            "upgrade H-MAS or name another file"
        )
    if version < SCHEMA_VERSION and write:  # readers do without the newer columns
        connection.executescript(
            f"BEGIN IMMEDIATE; {ADDED_IN_2} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    connection.execute("PRAGMA foreign_keys = ON")
    # WAL survives a killed process at this level; a power cut may cost the last decisions.
    connection.execute("PRAGMA synchronous = NORMAL")

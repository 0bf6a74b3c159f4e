"""Which ledgers and runs are there, and what is new in them? Asked by every page.

A page names a run as `LEDGER-RUN`: the position of its ledger on the command line, and
its id there. What has been read of a run is kept, so that a look costs only the new rows.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hmas_agents.config import Config
from hmas_agents.ledger import LedgerError, LedgerReader, Run
from hmas_agents.ledger.schema import open_ledger
from hmas_agents.ui.decision_rows import DecisionRow, read_rows
from hmas_agents.ui.outcome_bins import OutcomeBins

# A decision's outcome is known a window later; only the newest can still be waiting for it.
PENDING_ROWS = 200


class UnknownRun(LookupError):
    """A page asked for a run or a ledger that does not exist."""


@dataclass(slots=True)
class RunData:
    """What has been read of one run so far."""

    rows: list[DecisionRow] = field(default_factory=list)
    outcomes: OutcomeBins = field(default_factory=OutcomeBins)

    def read(self, connection: sqlite3.Connection, run_id: int) -> None:
        """Take in what was stored since the last look. Raises sqlite3.Error."""
        pending = {row.id: row for row in self.rows[-PENDING_ROWS:] if row.realised is None}
        if pending:
            for row_id, realised, requests in connection.execute(
                "SELECT id, realised, realised_requests FROM decisions "
                "WHERE run_id = ? AND id >= ? AND realised IS NOT NULL",
                (run_id, min(pending)),
            ):
                if row_id in pending:
                    pending[row_id].realised = realised
                    pending[row_id].realised_requests = requests
        self.rows += read_rows(connection, run_id, self.rows[-1].id if self.rows else 0)
        self.outcomes.read(connection, run_id)

    @property
    def stamp(self) -> str:
        """Changes whenever there is something new to show."""
        settled = sum(row.realised is not None for row in self.rows[-PENDING_ROWS:])
        return f"{self.rows[-1].id if self.rows else 0}.{settled}.{self.outcomes.count}"


@dataclass(frozen=True, slots=True)
class LedgerState:
    """Whether a ledger can be read. `written_s`: Unix time of its last write."""

    path: str
    state: Literal["ready", "waiting", "broken"]
    problem: str = ""
    written_s: float | None = None


class Ledgers:
    """The ledgers named on the command line, read-only, also while controllers write them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self._lock = threading.RLock()  # a comparison holds two runs
        self._runs: dict[tuple[int, int, int], RunData] = {}

    def states(self) -> list[LedgerState]:
        """One per ledger: ready, not there yet, or not usable and why."""
        return [self._state(path) for path in self.paths]

    def list_runs(self) -> Iterator[tuple[str, Run]]:
        """Every run of every usable ledger with its key, oldest first."""
        for index, path in enumerate(self.paths):
            if self._state(path).state != "ready":
                continue
            with LedgerReader(path) as reader:
                for run in reader.list_runs():
                    yield f"{index}-{run.id}", run

    @contextmanager
    def read_run(self, key: str) -> Iterator[tuple[Run, RunData]]:
        """A run and everything stored of it so far; nobody reads on while it is held.

        Raises:
            UnknownRun: there is no run of that key.
            LedgerError: its ledger cannot be read.
        """
        path, run_id = self.locate(key)
        with LedgerReader(path) as reader:
            run = next((run for run in reader.list_runs() if run.id == run_id), None)
        if run is None:
            raise UnknownRun(f"{path}: there is no run {run_id}")
        inode = path.stat().st_ino  # a new file of the same name is another ledger
        with self._lock, _connected(path) as connection:
            place = (self.paths.index(path), inode, run_id)
            if place not in self._runs:
                self._runs[place] = RunData(outcomes=OutcomeBins(_own_tenants(run)))
            data = self._runs[place]
            data.read(connection, run_id)
            yield run, data

    def locate(self, key: str) -> tuple[Path, int]:
        """The ledger and the id in `LEDGER-ID`, of a run or a decision. Raises UnknownRun."""
        index, _, number = key.partition("-")
        if not (index.isdecimal() and number.isdecimal() and int(index) < len(self.paths)):
            raise UnknownRun(f"{key!r} is not LEDGER-ID with LEDGER below {len(self.paths)}")
        return self.paths[int(index)], int(number)

    def _state(self, path: Path) -> LedgerState:
        try:
            # SQLite creates the file before anything is in it.
            if not path.exists() or (path.is_file() and path.stat().st_size == 0):
                return LedgerState(str(path), "waiting")
            open_ledger(path, write=False).close()
            files = (path, path.with_name(f"{path.name}-wal"))
            written_s = max(file.stat().st_mtime for file in files if file.is_file())
        except (LedgerError, OSError, ValueError) as error:
            return LedgerState(str(path), "broken", str(error))
        return LedgerState(str(path), "ready", written_s=written_s)


def _own_tenants(run: Run) -> tuple[str, ...]:
    """Whose requests were the controller's own; nobody's in a run of another version's."""
    try:
        return Config.model_validate(run.config).own_tenants
    except ValueError:
        return ()


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_ledger(path, write=False)
    try:
        yield connection
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: cannot be read: {error}") from error
    finally:
        connection.close()


def describe(key: str, path: Path, run: Run) -> dict[str, Any]:
    """A run as the run picker shows it."""
    control = run.config.get("control") or {}
    return {
        "key": key,
        "id": run.id,
        "label": run.label,
        "ledger": str(path),
        "mode": control.get("mode", ""),
        "decisions": run.decisions,
        "outcomes": run.outcomes,
        "first_s": run.first_s,
    }

"""When does the ledger touch the disk for good? Beside the loop, never in it.

A commit to SQLite's write-ahead log does not wait for the disk; moving the log into the
database does, on a busy disk for many seconds, and by default the commit that fills the
log pays for it. Here a thread does it instead; passive checkpoints block no writer.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path

PERIOD_S = 30.0


class Checkpointer:
    """Checkpoints a ledger in the background until it is stopped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hmas-ledger", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop, after a checkpoint that is under way."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            # A disk that refuses is for the writer to report; the log keeps the data.
            with contextlib.suppress(sqlite3.Error), contextlib.closing(
                sqlite3.connect(self._path, timeout=1.0)
            ) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

"""What does the demo show while it runs? Requests, goodput, policy in force, last decision."""

import threading
import time
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from evals.result.recording import RecordedEngine
from serving.contracts import Outcome, Snapshot
from serving.engines.protocol import EngineUnavailable

_POLL_S = 1.0
_LINE_EVERY_S = 15.0


class ArmView:
    """Live progress of one arm; a context manager.

    On a terminal a panel is redrawn once a second, elsewhere a line is printed every
    15 seconds.
    """

    def __init__(self, console: Console, title: str, offered: int, engine: RecordedEngine) -> None:
        self._console, self._title, self._offered, self._engine = console, title, offered, engine
        self._sent = self._left = self._met = 0
        self._began_s: float | None = None  # when the first request was sent
        self._snapshot: Snapshot | None = None
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="demo-view", daemon=True)
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def on_event(self, kind: str, outcome: Outcome | None) -> None:
        """Count a request that was sent or has left."""
        if self._began_s is None:
            self._began_s = time.monotonic()
        self._sent += kind == "sent"
        self._left += kind == "left"
        self._met += outcome is not None and outcome.met

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        self._poller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._poller.join()
        self._live.stop()
        self._print_line()

    def _poll(self) -> None:
        line_due_s = _LINE_EVERY_S
        while not self._stop.wait(_POLL_S):
            try:
                self._snapshot = self._engine.snapshot()
            except EngineUnavailable:
                continue  # the replay reports what that means for requests
            if self._console.is_terminal:
                self._live.update(self._panel(), refresh=True)
            elif self._elapsed_s() >= line_due_s:
                line_due_s += _LINE_EVERY_S
                self._print_line()

    def _elapsed_s(self) -> float:
        return 0.0 if self._began_s is None else time.monotonic() - self._began_s

    def _rate_rps(self) -> float:
        return self._met / max(self._elapsed_s(), 1.0)

    def _print_line(self) -> None:
        self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def _decision(self) -> str:
        made = self._engine.decisions
        return f"{made[-1].policy}: {made[-1].reason}" if made else "none"

    def _line(self) -> str:
        policy = self._snapshot.policy if self._snapshot else "-"
        waiting = self._snapshot.queue.waiting if self._snapshot else 0
        return (
            f"{self._title} {self._elapsed_s():4.0f} s: sent {self._sent}/{self._offered}, "
            f"left {self._left}, met SLO {self._met}, goodput {self._rate_rps():.2f}/s, "
            f"waiting {waiting}, policy {policy}, decisions {len(self._engine.decisions)}"
        )

    def _panel(self) -> Table:
        table = Table(title=self._title, show_header=False, min_width=72)
        snapshot = self._snapshot
        table.add_row("requests", f"{self._sent} of {self._offered} sent, {self._left} left")
        table.add_row("goodput", f"{self._rate_rps():.2f} requests/s, {self._met} met their SLOs")
        if snapshot is not None:
            limits = snapshot.limits
            table.add_row(
                "engine", f"{snapshot.batch.running} running, {snapshot.queue.waiting} waiting"
            )
            table.add_row("policy", f"{snapshot.policy} (epoch {snapshot.epoch})")
            table.add_row(
                "limits",
                f"{limits.token_budget} tokens{' by slack' if limits.follow_slack else ''}, "
                f"{limits.max_active_requests} active, KV reserve {limits.kv_reserve:.0%}",
            )
        table.add_row("last decision", self._decision())
        return table

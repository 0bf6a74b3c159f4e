"""What do a soak's decisions do to the engine? One random call of a control route a second.

A thread beside the clients, started by `run`. It also follows the engine's journal, so
that no event is overwritten unread, and the memory of the engine processes.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import psutil

from evals.checks.soak.decisions import CONTROLLER, Action, EngineView, draw_action
from serving.contracts import Arrival, Outcome, Snapshot
from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable

Answer = Literal["accepted", "refused", "malformed", "denied", "broken"]

PERIOD_S = 1.0
_MIB = 1 << 20
_GONE_AFTER = 5
_LEASE_MARGIN_S = 2.0  # calls wait for the step in flight: nearer to its end a lease is not sure


@dataclass(slots=True)
class Journal:
    """Every event since the soak began."""

    arrivals: list[Arrival] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    lost: int = 0


class Steering:
    """Random decisions by `seed`, and what is observed beside them.

    Attributes:
        answers: how many calls of each name were answered how.
        broken: guarantees that did not hold, and calls without a usable answer, counted.
        gone: the engine has not answered for several calls in a row.
        journal: events since the start.
        memory: (seconds since the start, resident MiB of the engine processes `core_pids`).
        most_waiting: longest queue seen.
    """

    def __init__(
        self, base_url: str, token: str, core_pids: list[int], *, seed: int, snapshot: Snapshot
    ) -> None:
        self._token, self._rng = token, random.Random(f"decisions:{seed}")
        self._engine = LiveEngine(base_url, token)
        self._client = httpx.Client(base_url=base_url, timeout=60.0)
        self._processes = [psutil.Process(pid) for pid in core_pids]
        self._envelope, self._epoch = snapshot.envelope, snapshot.epoch
        self._cursor = snapshot.journal_head
        self._lease_until_s = 0.0
        self._began_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="soak-steering")
        self.answers: dict[str, Counter[str]] = defaultdict(Counter)
        self.broken: Counter[str] = Counter()
        self.gone = False
        self.journal = Journal()
        self.memory: list[tuple[float, float]] = []
        self.most_waiting = 0

    def start(self) -> None:
        """Begin with the calls."""
        self._thread.start()

    def stop(self) -> None:
        """End the calls and give the lease back; the engine is at its default then."""
        self._stop.set()
        self._thread.join()
        try:
            self._engine.release(CONTROLLER)
        except EngineUnavailable as error:
            self.broken[f"release at the end: {error}"] += 1

    def close(self) -> None:
        """Close the connections."""
        self._engine.close()
        self._client.close()

    def follow(self) -> None:
        """Read the journal up to its end, and the memory."""
        while True:
            page = self._engine.journal(self._cursor)
            self.journal.arrivals += page.arrivals
            self.journal.outcomes += page.outcomes
            self.journal.lost += page.lost
            if page.cursor == self._cursor:
                break
            self._cursor = page.cursor
        elapsed_s = time.monotonic() - self._began_s
        resident = sum(process.memory_info().rss for process in self._processes)
        self.memory.append((elapsed_s, round(resident / _MIB, 1)))

    def _run(self) -> None:
        failed, due_s = 0, time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s = max(due_s + PERIOD_S, time.monotonic())
            try:
                snapshot = self._engine.snapshot()
                self._epoch = snapshot.epoch
                self.most_waiting = max(self.most_waiting, snapshot.queue.waiting)
                leased = time.monotonic() < self._lease_until_s
                view = EngineView(self._envelope, self._epoch, leased)
                self._call(draw_action(self._rng, view))
                self.follow()
                failed = 0
            except (EngineUnavailable, httpx.HTTPError, psutil.Error) as error:
                self.broken[f"{type(error).__name__}: {error}"] += 1
                failed += 1
                self.gone = failed >= _GONE_AFTER

    def _call(self, action: Action) -> None:
        token = self._token if action.token is None else action.token
        # As bytes: a wrong token need not be ASCII.
        headers = {
            b"Authorization": f"Bearer {token}".encode(),
            b"Content-Type": b"application/json",
        }
        response = self._client.post(action.path, content=action.body, headers=headers)
        answer = read_answer(response)
        self.answers[action.name][answer] += 1
        if answer == "broken":
            self.broken[f"{action.name}: HTTP {response.status_code} {response.text[:200]}"] += 1
        if action.must_be_refused and answer == "accepted":
            self.broken[f"{action.name} was accepted: {action.body[:300]!r}"] += 1
        if answer == "accepted" and action.name != "second controller":
            # A release leaves no lease; all else that is accepted is ours for `ttl_s`.
            held_s = action.ttl_s - _LEASE_MARGIN_S
            self._lease_until_s = time.monotonic() + held_s if held_s > 0 else 0.0
        elif answer == "accepted":
            self._lease_until_s = 0.0


def read_answer(response: httpx.Response) -> Answer:
    """How a control route answered; with several engine cores, accepted means by all."""
    if response.status_code in (401, 403):
        return "denied"
    if response.is_client_error:
        return "malformed"
    try:
        ranks: list[dict[str, Any]] = response.json()["ranks"]
        return "accepted" if all(rank["accepted"] for rank in ranks) else "refused"
    except (ValueError, KeyError, TypeError):
        return "broken"

"""What became of each request of a soak, as its client saw it? Open loop, one task each.

Called by `run`. A client never waits for another one; what it saw is a `Visit`.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import httpx

from evals.checks.soak.traffic import Errand, Flavour, Kind, draw_errand
from evals.live.completion_stream import Served, StreamError, stream_completion

End = Literal["finished", "left", "refused", "failed"]
ENDS: tuple[End, ...] = ("finished", "left", "refused", "failed")

TIMEOUT_S = 300.0  # longer than any request should need: then it has failed


@dataclass(frozen=True, slots=True)
class Visit:
    """One request after its end; `detail` says why it was refused or failed."""

    index: int
    kind: Kind
    end: End
    detail: str = ""
    flavour: Flavour = "plain"
    answers: int = 1


class TokenClock:
    """When did anybody last see a token? Time counts only while somebody waits for one.

    Attributes:
        longest_s: longest time so far without any token for anybody.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._waiting = 0
        self._last_s = 0.0
        self.longest_s = 0.0

    def enter(self) -> None:
        """A client begins to wait."""
        if self._waiting == 0:
            self._last_s = self._now()
        self._waiting += 1

    def token(self) -> None:
        """Something came from the server."""
        now_s = self._now()
        self.longest_s = max(self.longest_s, now_s - self._last_s)
        self._last_s = now_s

    def leave(self) -> None:
        """A client waits no more."""
        self.longest_s = max(self.longest_s, self._now() - self._last_s)
        self._waiting -= 1


class _LeftEarly(Exception):
    """The client goes away now; raised inside the stream, which closes it."""


class Clients:
    """The clients of one soak; `seed` decides every request, at `rate_rps` on average.

    Attributes:
        visits: of the requests that have ended.
        sent: how many have been sent.
        clock: for the longest time without a token.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        max_model_len: int,
        *,
        seed: int,
        rate_rps: float,
        adapters: Sequence[str] = (),
    ) -> None:
        self._base_url, self._model, self._max_model_len = base_url, model, max_model_len
        self._adapters = adapters
        self._rng, self._rate_rps = random.Random(f"traffic:{seed}"), rate_rps
        # The server's journal may hold an earlier soak: ids differ by the time of the start.
        self._run = f"soak{time.time_ns():x}"
        self.visits: list[Visit] = []
        self.sent = 0
        self.clock = TokenClock()

    def index_of(self, engine_request_id: str) -> int | None:
        """Which of these requests the engine means; None if it is none of them."""
        _, ours, rest = engine_request_id.partition(f"{self._run}-")
        return int(rest.partition("x")[0]) if ours else None

    def ends(self) -> Counter[str]:
        """How many visits ended how."""
        return Counter(visit.end for visit in self.visits)

    async def send_for(self, seconds: float, give_up: Callable[[], bool]) -> None:
        """Send requests for so long, or until `give_up` says so; wait until all have ended."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        end_s = time.monotonic() + seconds
        async with (
            httpx.AsyncClient(base_url=self._base_url, limits=limits, timeout=None) as client,
            asyncio.TaskGroup() as group,
        ):
            due_s = time.monotonic()
            while True:
                errand = draw_errand(
                    self._rng, self.sent, model=self._model, rate_rps=self._rate_rps,
                    max_model_len=self._max_model_len, adapters=self._adapters,
                )  # fmt: skip
                due_s += errand.wait_s
                if due_s > end_s or give_up():
                    break
                await asyncio.sleep(due_s - time.monotonic())
                group.create_task(self._visit(client, self.sent, errand))
                self.sent += 1

    async def _visit(self, client: httpx.AsyncClient, index: int, errand: Errand) -> None:
        request_id = f"{self._run}-{index}x"
        try:
            if errand.kind == "bad":
                end, detail = await _post(client, request_id, errand.body)
            else:
                end, detail = await self._stream(client, request_id, errand)
        except httpx.HTTPError as error:
            end, detail = "failed", f"{type(error).__name__}: {error}"
        self.visits.append(Visit(index, errand.kind, end, detail, errand.flavour, errand.answers))

    async def _stream(
        self, client: httpx.AsyncClient, request_id: str, errand: Errand
    ) -> tuple[End, str]:
        served = Served()

        def on_event() -> None:
            self.clock.token()
            enough = errand.leave_after_tokens
            if enough is not None and served.output_tokens >= enough and served.finish == "error":
                raise _LeftEarly

        self.clock.enter()
        try:
            async with asyncio.timeout(errand.leave_after_s or TIMEOUT_S):
                await stream_completion(client, errand.body, request_id, served, on_event)
        except _LeftEarly:
            return "left", ""
        except TimeoutError:
            if errand.leave_after_s is not None:
                return "left", ""
            return "failed", f"not finished after {TIMEOUT_S:g} s"
        except StreamError as error:
            refused = error.status is not None and 400 <= error.status < 500
            return ("refused" if refused else "failed"), str(error)
        finally:
            self.clock.leave()
        return "finished", ""


async def _post(client: httpx.AsyncClient, request_id: str, body: bytes) -> tuple[End, str]:
    headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
    answer = await client.post("/v1/completions", content=body, headers=headers, timeout=TIMEOUT_S)
    text = f"HTTP {answer.status_code}: {answer.text[:200]}"
    if answer.is_success:
        return "finished", text
    return ("refused" if answer.is_client_error else "failed"), text

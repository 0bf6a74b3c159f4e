"""What comes back from one streaming completion? Server-sent events into token times.

Called by the load generator and the capacity measurement.
"""

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from serving.contracts import Finish

REFUSED = (429, 503)


class StreamError(Exception):
    """A completion that failed; `finish` says how it counts, `status` is HTTP's if it was that."""

    def __init__(self, finish: Finish, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.finish: Finish = finish
        self.status = status


@dataclass(slots=True)
class Served:
    """What a client saw so far; monotonic times, None before the first token.

    `sent_s`: when the last byte of the request was written. `gaps_s`: one for each token after
    the first; of tokens that came together all but one are 0.
    """

    sent_s: float | None = None
    first_s: float | None = None
    last_s: float | None = None
    end_s: float = 0.0
    output_tokens: int = 0
    finish: Finish = "error"
    gaps_s: list[float] = field(default_factory=list)

    def note(self, event: dict[str, Any], now_s: float) -> bool:
        """Take in one event that came at `now_s`; True when it carries the finish reason."""
        tokens = (event.get("usage") or {}).get("completion_tokens")
        choices = event.get("choices") or []
        if tokens is None:  # a server without continuous usage: one token per chunk
            tokens = self.output_tokens + len(choices)
        if tokens > self.output_tokens:
            if self.last_s is None:
                self.first_s = now_s
            else:
                self.gaps_s.append(now_s - self.last_s)
            self.gaps_s += [0.0] * (tokens - self.output_tokens - 1)
            self.last_s = now_s
        self.output_tokens = tokens  # may be fewer: what the server counts at the end is right
        reason = choices[0].get("finish_reason") if choices else None
        if reason is None:
            return False
        self.finish = "stop" if reason == "stop" else "aborted" if reason == "abort" else "length"
        return True


async def stream_completion(
    client: httpx.AsyncClient,
    body: bytes,
    request_id: str,
    served: Served,
    on_event: Callable[[], None] = lambda: None,
) -> None:
    """Send one request (JSON) and note in `served` when tokens arrive and how it ends.

    Leaving it early (a timeout, a cancellation, `on_event` raising) closes the connection,
    which aborts the request in the server. `on_event` follows each event that was noted.

    Raises:
        StreamError: refused (429, 503), an HTTP error, a broken or unfinished stream.
    """

    async def trace(event: str, _: Any) -> None:
        if event.endswith("send_request_body.complete"):
            served.sent_s = time.monotonic()

    headers = {"X-Request-Id": request_id, "Content-Type": "application/json"}
    try:
        async with client.stream(
            "POST", "/v1/completions", content=body, headers=headers, extensions={"trace": trace}
        ) as response:
            if response.status_code != httpx.codes.OK:
                finish: Finish = "rejected" if response.status_code in REFUSED else "error"
                text = (await response.aread()).decode(errors="replace")[:200]
                raise StreamError(
                    finish, f"HTTP {response.status_code}: {text}", response.status_code
                )
            ended = False
            async for event in _events(response):
                ended = served.note(event, time.monotonic()) or ended
                on_event()
            if not ended:
                raise StreamError("error", "the stream ended without a finish_reason")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StreamError("error", f"{type(error).__name__}: {error}") from error


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Lines that end in a newline; httpx ends one at separators that answers hold, too."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    yield rest


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in _lines(response):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip().decode(errors="replace")
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError as error:
            raise StreamError("error", f"not JSON: {data[:200]}") from error
        if not isinstance(event, dict) or "error" in event:
            raise StreamError("error", f"the server reports {data[:200]}")
        yield event

"""What did the policy agent's model answer? Replies kept in a file, found by what was sent.

With them a simulated run with a model repeats itself, on a machine that has none. A reply
that is not there is an error, never a made-up one. Used by the arm `hmas`.
"""

import fcntl
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from graphs.control_loop import ControlLoop

Entry = dict[str, Any]


class CassetteError(RuntimeError):
    """A reply is not in the cassette, or could not be put there; says what to do."""


class Cassette(httpx.BaseTransport):
    """Answers an OpenAI client from a file of JSON lines (gzipped: `.gz`): `key`, `asked`, `reply`.

    The key is the SHA-256 of method, last word of the path, and body: neither the endpoint's
    address nor its API key matters, and neither is kept. Several processes may record into
    the same file; the first reply to a question stays. With `record` the endpoint (over HTTP, if
    none is given) is asked what the file does not answer; then the file need not exist.

    Raises:
        CassetteError: the file cannot be read, or a line of it is broken.
    """

    def __init__(
        self, path: Path, *, record: bool, endpoint: httpx.BaseTransport | None = None
    ) -> None:
        if not record and not path.is_file():
            raise CassetteError(f"cassette {path}: no such file; {_how_to_record(path)}")
        self._path = path
        self._endpoint = (endpoint or httpx.HTTPTransport()) if record else None
        self._replies = _read(path)
        self._fault: CassetteError | None = None

    def insert(self, loop: "ControlLoop") -> None:
        """Put the cassette between the loop's policy agent and the network."""
        agent = loop._parts.agent
        if agent is None:
            raise CassetteError(f"cassette {self._path}: the loop has no policy agent")
        agent.reach_through(self)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The reply kept, else the endpoint's.

        Raises:
            CassetteError: neither is there; `check` raises it again.
        """
        asked = asked_of(request)
        key = key_of(asked)
        try:
            if key not in self._replies:
                self._replies[key] = self._record(key, asked, request)
        except CassetteError as error:
            self._fault = error
            raise
        return httpx.Response(200, json=self._replies[key])

    def check(self) -> None:
        """Raise what went wrong, also where the client took it for a failed connection.

        Raises:
            CassetteError: a reply was missing since the start.
        """
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            self._endpoint.close()

    def _record(self, key: str, asked: Entry, request: httpx.Request) -> Any:
        if self._endpoint is None:
            raise CassetteError(
                f"cassette {self._path}: no reply for {key}; {_how_to_record(self._path)}"
            )
        try:
            response = self._endpoint.handle_request(request)
            response.read()
        except httpx.HTTPError as error:
            raise CassetteError(f"{request.url}: nothing to record: {error!r}") from error
        if response.status_code != httpx.codes.OK:
            raise CassetteError(
                f"{request.url}: nothing to record: HTTP {response.status_code}: "
                f"{response.text[:200]}"
            )
        return _append(self._path, {"key": key, "asked": asked, "reply": response.json()})


def asked_of(request: httpx.Request) -> Entry:
    """What a request asks, without whom: method, last word of the path, body."""
    body = request.read()
    return {
        "method": request.method,
        "what": request.url.path.rsplit("/", 1)[-1],
        "body": json.loads(body) if body else None,
    }


def key_of(asked: Entry) -> str:
    """SHA-256 of the canonical JSON of what was asked, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _append(path: Path, entry: Entry) -> Any:
    """Add an entry, unless another process has answered the same; the reply that stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        kept = _read(path)
        if entry["key"] not in kept:
            line = (json.dumps(entry, sort_keys=True) + "\n").encode()
            file.write(gzip.compress(line) if path.suffix == ".gz" else line)
            return entry["reply"]
        return kept[entry["key"]]


def _read(path: Path) -> dict[str, Any]:
    replies: dict[str, Any] = {}
    for number, line in _lines(path):
        try:
            entry = json.loads(line)
            replies.setdefault(entry["key"], entry["reply"])
        except (ValueError, KeyError, TypeError) as error:
            raise CassetteError(f"{path}:{number}: not an entry of a cassette: {error}") from error
    return replies


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        yield from enumerate(text.splitlines(), start=1)
    except FileNotFoundError:
        return
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CassetteError(f"{path}: cannot be read: {error}") from error


def _how_to_record(path: Path) -> str:
    return f"record it: the same command with --cassette {path} --model-url URL"

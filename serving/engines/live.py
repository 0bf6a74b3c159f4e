"""How is a running vLLM driven? The Engine protocol over the /hmas/ routes.

Used by the graphs, the CLI and the live evals. Every failure is EngineUnavailable
with the URL and what to do about it.
"""

import time
from pathlib import Path
from typing import Any, TypeVar

import httpx

from serving.contracts import Ack, Decision, JournalPage, Snapshot, decode, encode
from serving.engines.protocol import EngineUnavailable

T = TypeVar("T")
DEFAULT_TOKEN_FILE = Path("var/hmas.token")


def read_token(path: Path = DEFAULT_TOKEN_FILE) -> str:
    """The token that `hmas serve` wrote.

    Raises:
        EngineUnavailable: the file is missing or empty.
    """
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise EngineUnavailable(
            f"no token at {path} ({error.strerror}): is `hmas serve` running from this folder? "
            "Otherwise give --token-file"
        ) from error
    if not token:
        raise EngineUnavailable(f"{path} is empty: restart `hmas serve`, which writes it")
    return token


class LiveEngine:
    """A running vLLM server with the hook.

    Args:
        base_url: e.g. http://127.0.0.1:8000, with or without a trailing /v1.
        token: HMAS_TOKEN of the server.
        timeout_s: of every call. Calls wait for the step in flight, which on slow
            hardware takes seconds.
    """

    def __init__(self, base_url: str, token: str, timeout_s: float = 30.0) -> None:
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(
            base_url=self._url, timeout=timeout_s, headers={"Authorization": f"Bearer {token}"}
        )

    def now(self) -> float:
        """Unix time; `hmas doctor` checks that the engine's clock agrees."""
        return time.time()

    def snapshot(self) -> Snapshot:
        """The state between two steps."""
        return self._call(Snapshot, "GET", "/hmas/snapshot")

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force."""
        return self._call(Ack, "POST", "/hmas/apply", json=encode(decision))

    def renew(self, controller_id: str, ttl_s: float) -> Ack:
        """Extend a lease."""
        body = {"controller_id": controller_id, "ttl_s": ttl_s}
        return self._call(Ack, "POST", "/hmas/renew", json=body)

    def release(self, controller_id: str) -> Ack:
        """Give a lease back."""
        return self._call(Ack, "POST", "/hmas/release", json={"controller_id": controller_id})

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        params = {"cursor": cursor, "limit": limit}
        return self._call(JournalPage, "GET", "/hmas/journal", params=params)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(self, kind: type[T], method: str, path: str, **kwargs: Any) -> T:
        try:
            response = self._client.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"{self._url}{path}: {type(error).__name__} {error}: is `hmas serve` running there?"
            ) from error
        if response.status_code != httpx.codes.OK:
            raise EngineUnavailable(f"{self._url}{path}: {_explain(response)}")
        try:
            ranks = response.json()["ranks"]
            if len(ranks) == 1:
                return decode(kind, ranks[0])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable(
                f"{self._url}{path}: an answer that is not this version's {kind.__name__}: {error}"
            ) from error
        raise EngineUnavailable(
            f"{self._url} has {len(ranks)} data-parallel engine cores; this version drives one"
        )


def _explain(response: httpx.Response) -> str:
    try:
        detail = response.json()["error"]["message"]  # vLLM's form of every error
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if response.status_code == httpx.codes.NOT_FOUND:
        detail = "no /hmas/ routes: this vLLM runs without the plugin, start it with `hmas serve`"
    return f"HTTP {response.status_code}: {detail}"

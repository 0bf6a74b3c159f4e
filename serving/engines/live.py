"""How is a running vLLM driven? The Engine protocol over the /hmas/ routes.

Used by the graphs, the CLI and the live evals. Every failure is EngineUnavailable
with the URL and what to do about it.
"""

import math
from pathlib import Path
from typing import Any

import httpx

from serving.engines.asked import AskedEngine
from serving.engines.protocol import EngineUnavailable

DEFAULT_TOKEN_FILE = Path("var/hmas.token")
_READS = frozenset(("snapshot", "contract", "journal", "inside"))  # by GET; the rest by POST
_ROUTES = {"apply_contract": "contract"}  # where a route is not called as its method


class TokenError(EngineUnavailable):
    """No token for the control routes, or one that the server does not take."""


def read_token(path: Path = DEFAULT_TOKEN_FILE) -> str:
    """The token that `hmas serve` wrote.

    Raises:
        TokenError: the file is missing or empty.
    """
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise TokenError(
            f"no token at {path} ({error.strerror}): is `hmas serve` running from this folder? "
            "Otherwise give --token-file"
        ) from error
    if not token:
        raise TokenError(f"{path} is empty: restart `hmas serve`, which writes it")
    return token


class LiveEngine(AskedEngine):
    """A running vLLM server with the hook: all the ranks behind its API server, as one.

    Args:
        base_url: e.g. http://127.0.0.1:8000, with or without a trailing /v1.
        token: HMAS_TOKEN of the server.
        timeout_s: of every call.
        look_s: of snapshots, if that is less.
    """

    def __init__(
        self, base_url: str, token: str, timeout_s: float = 30.0, look_s: float = math.inf
    ) -> None:
        super().__init__(timeout_s, look_s)
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(
            base_url=self._url, timeout=timeout_s, headers={"Authorization": f"Bearer {token}"}
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def place(self, method: str) -> str:
        """The route's URL."""
        return f"{self._url}{_path(method)}"

    def ask(self, method: str, payload: dict[str, Any], limit_s: float) -> list[dict[str, Any]]:
        """The answers of a route; httpx bounds each read by `limit_s`, not the whole."""
        if method == "journal":
            payload = {"cursor": payload["cursors"], "limit": payload["limit"]}
        verb, how = ("GET", "params") if method in _READS else ("POST", "json")
        times = httpx.Timeout(limit_s).as_dict()
        sent: dict[str, Any] = {how: payload, "extensions": {"timeout": times}}
        try:
            response = self._client.request(verb, _path(method), **sent)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"{self.place(method)}: {type(error).__name__} {error}: "
                "is `hmas serve` running there?"
            ) from error
        if response.status_code != httpx.codes.OK:
            refused = response.status_code == httpx.codes.UNAUTHORIZED
            error_type = TokenError if refused else EngineUnavailable
            raise error_type(f"{self.place(method)}: {_explain(response)}")
        try:
            return list(response.json()["ranks"])
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable(
                f"{self.place(method)}: an answer that is not this version's: {error}"
            ) from error


def _path(method: str) -> str:
    return f"/hmas/{_ROUTES.get(method, method)}"


def _explain(response: httpx.Response) -> str:
    try:
        detail = response.json()["error"]["message"]  # vLLM's form of every error
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if response.status_code == httpx.codes.NOT_FOUND:
        detail = "no /hmas/ routes: this vLLM runs without the plugin, start it with `hmas serve`"
    return f"HTTP {response.status_code}: {detail}"

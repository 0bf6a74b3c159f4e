"""How is a running vLLM driven? The Engine protocol over the /hmas/ routes.

Used by the graphs, the CLI and the live evals. Every failure is EngineUnavailable
with the URL and what to do about it.
"""

import math
import time
from pathlib import Path
from typing import Any, TypeVar

import httpx

from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    ResidentPage,
    Snapshot,
    decode,
    encode,
)
from serving.engines.joint_journal import merge_pages, split_cursor
from serving.engines.protocol import EngineUnavailable
from serving.engines.ranks import merge_acks, merge_contract_acks, merge_snapshots

T = TypeVar("T")
DEFAULT_TOKEN_FILE = Path("var/hmas.token")


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


class LiveEngine:
    """A running vLLM server with the hook: all the ranks behind its API server, as one.

    Every call reaches every rank. A decision that some ranks refuse is in force on the
    others: the Ack says so, `Snapshot.ranks` shows it, renewing is refused until one
    decision is in force everywhere, and the next one is accepted by all.

    Args:
        base_url: e.g. http://127.0.0.1:8000, with or without a trailing /v1.
        token: HMAS_TOKEN of the server.
        timeout_s: of every call. Calls wait for the step in flight, which on slow
            hardware takes seconds, and a page of the journal may be long. `apply` and `renew`
            end after a third of the lease if that is less: what is answered later counts as
            unanswered, for by then the lease may have ended.
        look_s: of snapshots, if that is less: a controller renews after it.
    """

    def __init__(
        self, base_url: str, token: str, timeout_s: float = 30.0, look_s: float = math.inf
    ) -> None:
        self._timeout_s, self._look_s = timeout_s, look_s
        self._url = base_url.rstrip("/").removesuffix("/v1")
        self._client = httpx.Client(
            base_url=self._url, timeout=timeout_s, headers={"Authorization": f"Bearer {token}"}
        )
        self._ranks: list[int] = []  # as the last answer named them

    def now(self) -> float:
        """Unix time; `hmas doctor` checks that the engine's clock agrees."""
        return time.time()

    def snapshot(self) -> Snapshot:
        """The state between two steps, summed up over ranks."""
        shots = self._call(Snapshot, "GET", "/hmas/snapshot", self._look_s)
        return merge_snapshots([shots[rank] for rank in sorted(shots)])

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force."""
        limit_s = _in_time_s(decision.ttl_s)
        return merge_acks(self._call(Ack, "POST", "/hmas/apply", limit_s, json=encode(decision)))

    def renew(self, controller_id: str, ttl_s: float) -> Ack:
        """Extend a lease."""
        body = {"controller_id": controller_id, "ttl_s": ttl_s}
        acks = self._call(Ack, "POST", "/hmas/renew", _in_time_s(ttl_s), json=body)
        return merge_acks(acks, one_epoch=True)

    def release(self, controller_id: str) -> Ack:
        """Give a lease back."""
        body = {"controller_id": controller_id}
        return merge_acks(self._call(Ack, "POST", "/hmas/release", json=body))

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch, on every rank."""
        body = {"by": by, "reason": reason}
        return merge_acks(self._call(Ack, "POST", "/hmas/stop", json=body))

    def start(self, by: str) -> Ack:
        """Let decisions in again, on every rank."""
        return merge_acks(self._call(Ack, "POST", "/hmas/start", json={"by": by}))

    def contract(self) -> ContractInForce:
        """The contract in force; of ranks that differ the newest."""
        held = self._call(ContractInForce, "GET", "/hmas/contract")
        return max(held.values(), key=lambda one: one.epoch)

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force."""
        body = encode(change)
        return merge_contract_acks(self._call(ContractAck, "POST", "/hmas/contract", json=body))

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        if cursor and not self._ranks:
            self.snapshot()  # who is there decides how the cursor is read
        cursors = split_cursor(cursor, self._ranks) if cursor else [0]
        params = {"cursor": cursors, "limit": limit}
        return merge_pages(self._call(JournalPage, "GET", "/hmas/journal", params=params), limit)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests that the first rank holds."""
        pages = self._call(ResidentPage, "GET", "/hmas/inside", params={"limit": limit})
        return pages[min(pages)]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(
        self, kind: type[T], method: str, path: str, limit_s: float = math.inf, **kwargs: Any
    ) -> dict[int, T]:
        """Every rank's answer, by rank; one that comes after `limit_s` counts as none."""
        began_s = time.monotonic()
        times = httpx.Timeout(min(limit_s, self._timeout_s)).as_dict()
        try:
            response = self._client.request(method, path, extensions={"timeout": times}, **kwargs)
        except httpx.HTTPError as error:
            raise EngineUnavailable(
                f"{self._url}{path}: {type(error).__name__} {error}: is `hmas serve` running there?"
            ) from error
        if (took_s := time.monotonic() - began_s) > limit_s:  # the timeout is each read's
            raise EngineUnavailable(
                f"{self._url}{path}: the answer took {took_s:.1f} s, too long for a lease: "
                f"at most {limit_s:.1f} s count (control.ttl_s)"
            )
        if response.status_code != httpx.codes.OK:
            refused = response.status_code == httpx.codes.UNAUTHORIZED
            error_type = TokenError if refused else EngineUnavailable
            raise error_type(f"{self._url}{path}: {_explain(response)}")
        try:
            answers = response.json()["ranks"]
            by_rank = {int(answer["rank"]): decode(kind, answer) for answer in answers}
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable(
                f"{self._url}{path}: an answer that is not this version's {kind.__name__}: {error}"
            ) from error
        if not answers or len(by_rank) < len(answers):
            raise EngineUnavailable(
                f"{self._url}{path}: {len(answers)} engine cores answered as ranks "
                f"{sorted(by_rank)}: each needs a data-parallel rank of its own"
            )
        self._ranks = sorted(by_rank)
        return {rank: by_rank[rank] for rank in self._ranks}


def _in_time_s(ttl_s: float) -> float:
    """How late an answer about a lease may come: a third of it, time for two more tries.

    A length that makes no sense is for the engine to refuse.
    """
    return ttl_s / 3 if ttl_s > 0 else math.inf


def _explain(response: httpx.Response) -> str:
    try:
        detail = response.json()["error"]["message"]  # vLLM's form of every error
    except (ValueError, KeyError, TypeError):
        detail = response.text[:200]
    if response.status_code == httpx.codes.NOT_FOUND:
        detail = "no /hmas/ routes: this vLLM runs without the plugin, start it with `hmas serve`"
    return f"HTTP {response.status_code}: {detail}"

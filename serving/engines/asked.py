"""What do the answers of an engine's cores come to? The Engine protocol, however they are asked.

`live` asks over HTTP, `fleet.ray_replica` through Ray; the messages are those that
`plugin.engine_methods` answers inside each engine core.
"""

import math
import time
from abc import ABC, abstractmethod
from typing import Any, TypeVar

from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    Parts,
    ResidentPage,
    Snapshot,
    decode,
    encode,
)
from serving.engines.joint_journal import merge_pages, split_cursor
from serving.engines.protocol import EngineUnavailable
from serving.engines.ranks import merge_acks, merge_contract_acks, merge_snapshots

T = TypeVar("T")


class AskedEngine(ABC):
    """All the ranks of one engine, as one.

    Every call reaches every rank. A decision that some ranks refuse is in force on the
    others: the Ack says so, `Snapshot.ranks` shows it, renewing is refused until one
    decision is in force everywhere, and the next one is accepted by all.

    Args:
        timeout_s: of every call. Calls wait for the step in flight, which on slow
            hardware takes seconds, and a page of the journal may be long. `apply` and `renew`
            end after a third of the lease if that is less: what is answered later counts as
            unanswered, for by then the lease may have ended.
        look_s: of snapshots, if that is less: a controller renews after it.
    """

    def __init__(self, timeout_s: float = 30.0, look_s: float = math.inf) -> None:
        self._timeout_s, self._look_s = timeout_s, look_s
        self._ranks: list[int] = []  # as the last answer named them

    @abstractmethod
    def ask(self, method: str, payload: dict[str, Any], limit_s: float) -> list[dict[str, Any]]:
        """The encoded answer of every engine core, within about `limit_s` seconds.

        Raises:
            EngineUnavailable: there is none; says which engine and what to do.
        """

    @abstractmethod
    def place(self, method: str) -> str:
        """What an error calls this question to this engine."""

    def now(self) -> float:
        """Unix time; `hmas doctor` checks that the engine's clock agrees."""
        return time.time()

    def snapshot(self) -> Snapshot:
        """The state between two steps, summed up over ranks."""
        shots = self._call(Snapshot, "snapshot", {}, self._look_s)
        return merge_snapshots([shots[rank] for rank in sorted(shots)])

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force."""
        limit_s = in_time_s(decision.ttl_s)
        return merge_acks(self._call(Ack, "apply", encode(decision), limit_s))

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend a lease."""
        body: dict[str, Any] = {"controller_id": controller_id, "ttl_s": ttl_s}
        if parts is not None:
            body["parts"] = {tenant: encode(part) for tenant, part in parts.items()}
        acks = self._call(Ack, "renew", body, in_time_s(ttl_s))
        return merge_acks(acks, one_epoch=True)

    def release(self, controller_id: str) -> Ack:
        """Give a lease back."""
        body = {"controller_id": controller_id}
        return merge_acks(self._call(Ack, "release", body))

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch, on every rank."""
        body = {"by": by, "reason": reason}
        return merge_acks(self._call(Ack, "stop", body))

    def start(self, by: str) -> Ack:
        """Let decisions in again, on every rank."""
        return merge_acks(self._call(Ack, "start", {"by": by}))

    def contract(self) -> ContractInForce:
        """The contract in force; of ranks that differ the newest."""
        held = self._call(ContractInForce, "contract", {})
        return max(held.values(), key=lambda one: one.epoch)

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force."""
        return merge_contract_acks(self._call(ContractAck, "apply_contract", encode(change)))

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        if cursor and not self._ranks:
            self.snapshot()  # who is there decides how the cursor is read
        cursors = split_cursor(cursor, self._ranks) if cursor else [0]
        asked = {"cursors": cursors, "limit": limit}
        return merge_pages(self._call(JournalPage, "journal", asked), limit)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests that the first rank holds."""
        pages = self._call(ResidentPage, "inside", {"limit": limit})
        return pages[min(pages)]

    def _call(
        self, kind: type[T], method: str, payload: dict[str, Any], limit_s: float = math.inf
    ) -> dict[int, T]:
        """Every rank's answer, by rank; one that comes after `limit_s` counts as none."""
        began_s = time.monotonic()
        answers = self.ask(method, payload, min(limit_s, self._timeout_s))
        if (took_s := time.monotonic() - began_s) > limit_s:  # a way to ask may bound less
            raise EngineUnavailable(
                f"{self.place(method)}: the answer took {took_s:.1f} s, too long for a lease: "
                f"at most {limit_s:.1f} s count (control.ttl_s)"
            )
        try:
            by_rank = {int(answer["rank"]): decode(kind, answer) for answer in answers}
        except (ValueError, KeyError, TypeError) as error:
            raise EngineUnavailable(
                f"{self.place(method)}: an answer that is not this version's {kind.__name__}: "
                f"{error}"
            ) from error
        if not answers or len(by_rank) < len(answers):
            raise EngineUnavailable(
                f"{self.place(method)}: {len(answers)} engine cores answered as ranks "
                f"{sorted(by_rank)}: each needs a data-parallel rank of its own"
            )
        self._ranks = sorted(by_rank)
        return {rank: by_rank[rank] for rank in self._ranks}


def in_time_s(ttl_s: float) -> float:
    """How late an answer about a lease may come: a third of it, time for two more tries.

    A length that makes no sense is for the engine to refuse.
    """
    return ttl_s / 3 if ttl_s > 0 else math.inf

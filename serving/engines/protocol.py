"""What can a controller do to an engine, live or simulated?

Called by the graphs and tools; implemented by `live` and `simulated`.
"""

from typing import Protocol

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
)


class EngineUnavailable(RuntimeError):
    """The engine did not answer, or refused the token; says which and what to do."""


class Engine(Protocol):
    """One engine (all its data-parallel ranks) or fleet. Every call may raise EngineUnavailable."""

    def now(self) -> float:
        """Seconds on the engine's clock: Unix time when live, virtual time when simulated."""
        ...

    def snapshot(self) -> Snapshot:
        """The state between two steps; of several ranks a sum, see `engines.ranks`."""
        ...

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force. A refused one leaves the engine (the rank) as it was."""
        ...

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend the lease of the decision in force to `ttl_s` seconds from now.

        A replica of a fleet gives tenants these `parts` of their terms until then; None leaves
        them as they are. A fleet divides the terms itself.
        """
        ...

    def release(self, controller_id: str) -> Ack:
        """Give the lease back: the engine returns to its default policy at once."""
        ...

    def contract(self) -> ContractInForce:
        """The contract in force, without the hashes of API keys; of several ranks the newest."""
        ...

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force. A refused one leaves the engine (the rank) as it was."""
        ...

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on, oldest first, at most `limit` events.

        A cursor is 0 (the oldest event kept), a snapshot's `journal_head`, or that of an
        earlier page; fewer than `limit` events mean that there are no more. With several
        ranks a cursor is larger for a later place but its differences count nothing.
        """
        ...

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests that the engine holds, at most `limit`: running ones, then by arrival.

        A simulation replays one engine core, so with several ranks this is the page of the
        first; vLLM's API server loads them evenly.
        """
        ...


class RemoteEngine(Engine, Protocol):
    """An engine in another process, or a fleet of them: what a person may do, too."""

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch: the default policy at once, and no decision is let in."""
        ...

    def start(self, by: str) -> Ack:
        """Let decisions in again."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...

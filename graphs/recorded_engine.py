"""What does a graph see that is run again on a recorded situation? An engine that stands still.

It answers as the engine did at that moment and takes no writes. Used by `graphs.fork`.
"""

from hmas_agents.situation import Situation
from serving.contracts import Ack, Decision, JournalPage, ResidentPage, Snapshot

RECORDED = "a recorded engine: nothing is applied"


class RecordedEngine:
    """The Engine protocol over one situation."""

    def __init__(self, situation: Situation) -> None:
        self._situation = situation

    def now(self) -> float:
        """The moment of the situation."""
        return self._situation.snapshot.now_s

    def snapshot(self) -> Snapshot:
        """As recorded."""
        return self._situation.snapshot

    def apply(self, decision: Decision) -> Ack:
        """Refused."""
        return Ack(False, self._situation.snapshot.epoch, f"{RECORDED} ({decision.policy})")

    def renew(self, controller_id: str, ttl_s: float) -> Ack:
        """Refused."""
        wanted = f"({ttl_s:g} s for {controller_id})"
        return Ack(False, self._situation.snapshot.epoch, f"{RECORDED} {wanted}")

    def release(self, controller_id: str) -> Ack:
        """Refused: nothing is held."""
        return Ack(False, self._situation.snapshot.epoch, f"{RECORDED} ({controller_id})")

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:  # noqa: ARG002  the protocol's
        """Empty: what had happened by then is in the situation."""
        return JournalPage(cursor=cursor, lost=0)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """As recorded, at most `limit` of them."""
        page = self._situation.inside
        kept = page.requests[:limit]
        return ResidentPage(page.now_s, kept, page.left_out + len(page.requests) - len(kept))

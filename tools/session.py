"""Who writes to the engine, and what does it want in force?

One `ControlSession` per controller: every tool, live or simulated, writes through
it, so that a decision always carries the whole desired state and epochs advance by
one. Built by `graphs.control_loop`; the tools get it from `hmas_agents.reload`.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

from serving.contracts import Ack, Decision, Limits, Snapshot
from serving.engines.protocol import Engine
from serving.hook.lease import clamp, owned_by, stopped_by

ADVISE = "advise mode: not applied"
RELEASED = "the session was released: nothing is applied any more"


@dataclass(frozen=True, slots=True)
class Desired:
    """What the controller wants in force: the part of a decision that lasts."""

    policy: str
    params: dict[str, float]
    limits: Limits


class ControlSession:
    """The one writer of one controller to one engine. Thread-safe.

    Every method may raise EngineUnavailable; the desired state changes only when
    the engine accepted it.
    """

    def __init__(self, engine: Engine, controller_id: str, ttl_s: float, dry_run: bool) -> None:
        self.engine = engine
        self.controller_id = controller_id
        self.ttl_s = ttl_s
        self.dry_run = dry_run
        self.lock = threading.RLock()
        self._desired: Desired | None = None
        self._released = False
        self._unsure = False  # the engine has not said what it made of the last decision

    def change(
        self,
        policy: str | None = None,
        params: dict[str, float] | None = None,
        reason: str = "",
        seen: Snapshot | None = None,
        **limits: Any,
    ) -> Ack:
        """Apply the desired state with these changes, as the engine's next epoch.

        Args:
            policy: the policy to put in force; None keeps the present one.
            params: its parameters; None keeps them, or means its defaults on a new policy.
            reason: why, in a few words; travels with the decision.
            seen: the engine as it is now, if the caller has just looked.
            **limits: fields of `serving.contracts.Limits` to set; clamped to the envelope.
        """
        with self.lock:
            snapshot = seen or self.engine.snapshot()
            if self.dry_run or self._released:
                return Ack(False, snapshot.epoch, RELEASED if self._released else ADVISE)
            start = self._desired or _in_force(snapshot)
            if policy is None:
                policy, params = start.policy, start.params if params is None else params
            wanted, clamped = clamp(replace(start.limits, **limits), snapshot.envelope)
            return self._apply(Desired(policy, params or {}, wanted), snapshot, reason, clamped)

    def renew(self) -> Ack:
        """Extend the lease; take it back with the whole desired state if it ran out."""
        with self.lock:
            if self._desired is None or self._released:
                return Ack(False, self.engine.snapshot().epoch, "there is nothing to renew")
            why = "a decision was not answered"
            if not self._unsure:
                ack = self.engine.renew(self.controller_id, self.ttl_s)
                if ack.accepted:
                    return ack
                why = f"lease was lost ({ack.reason})"
            snapshot = self.engine.snapshot()
            if hindrance := in_the_way(snapshot, self.controller_id):
                return Ack(False, snapshot.epoch, hindrance)
            return self._apply(self._desired, snapshot, why, {})

    def release(self) -> Ack:
        """Give the engine back to its default policy; later changes are refused."""
        with self.lock:
            self._released = True
            if self._desired is None and not self._unsure:
                return Ack(True, self.engine.snapshot().epoch, "nothing was in force")
            return self.engine.release(self.controller_id)

    def _apply(
        self, desired: Desired, snapshot: Snapshot, reason: str, clamped: dict[str, float]
    ) -> Ack:
        decision = Decision(
            controller_id=self.controller_id,
            epoch=snapshot.epoch + 1,
            ttl_s=self.ttl_s,
            policy=desired.policy,
            params=desired.params,
            limits=desired.limits,
            reason=reason,
        )
        self._unsure = True
        ack = self.engine.apply(decision)
        self._unsure = False
        if ack.accepted:
            self._desired = desired
        return replace(ack, clamped={**clamped, **ack.clamped})


def in_the_way(snapshot: Snapshot, controller_id: str) -> str:
    """What keeps a controller out of this engine now, in words; empty where nothing does."""
    if snapshot.stopped is not None:
        return stopped_by(snapshot.stopped, snapshot.now_s)
    if snapshot.controller_id in {"", controller_id}:
        return ""
    return owned_by(snapshot.controller_id, snapshot.lease_left_s)


def _in_force(snapshot: Snapshot) -> Desired:
    return Desired(snapshot.policy, dict(snapshot.params), snapshot.limits)

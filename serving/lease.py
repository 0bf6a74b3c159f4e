"""Who may steer this engine, until when, and what is in force?

One controller at a time; epochs only grow; a decision holds a lease, and when the
lease ends the engine's default comes back by itself. Pure logic, no vLLM.
"""

import math
from dataclasses import replace
from typing import Any

from serving.contracts import Ack, Decision, Envelope, Limits
from serving.contracts.limits import Knob
from serving.policies import complete_params
from serving.rules import KNOBS

_MAX_TTL_S = 24 * 3600.0
_MAX_EPOCH = 2**53  # larger integers do not survive JSON and msgpack everywhere


class Lease:
    """The decision in force and its owner.

    Args:
        default: what is in force without a controller.
        envelope: limits fixed at start-up; decisions are clamped to it.
    """

    def __init__(self, default: Decision, envelope: Envelope) -> None:
        self.default, self.envelope = default, envelope
        self.decision = default
        self.epoch = 0
        self._ends_s = math.inf

    @property
    def owner(self) -> str:
        """Id of the controller that holds the lease; empty when none does."""
        return self.decision.controller_id

    def left_s(self, now_s: float) -> float:
        """Seconds until the lease ends; 0 without one."""
        return max(0.0, self._ends_s - now_s) if self.owner else 0.0

    def expire(self, now_s: float) -> bool:
        """End an overdue lease; True if the default has just come back."""
        if not self.owner or now_s < self._ends_s:
            return False
        self._to_default()
        return True

    def accept(self, decision: Decision, now_s: float) -> Ack:
        """Put a decision in force if its controller, epoch, policy and values are acceptable."""
        if not decision.controller_id:
            return self._refuse("controller_id is empty")
        if conflict := self._conflict(decision.controller_id, now_s):
            return self._refuse(conflict)
        if not self.epoch < decision.epoch <= _MAX_EPOCH:
            return self._refuse(
                f"epoch {decision.epoch} is not above the present {self.epoch} (up to {_MAX_EPOCH})"
            )
        if not 0 < decision.ttl_s <= _MAX_TTL_S:
            return self._refuse(f"ttl_s = {decision.ttl_s} is outside 0..{_MAX_TTL_S:g}")
        try:
            params = complete_params(decision.policy, decision.params)
        except ValueError as error:
            return self._refuse(str(error))
        limits, clamped = clamp(decision.limits, self.envelope)
        self.decision = replace(decision, params=params, limits=limits)
        self.epoch, self._ends_s = decision.epoch, now_s + decision.ttl_s
        return Ack(True, self.epoch, "in force", clamped)

    def renew(self, controller_id: str, ttl_s: float, now_s: float) -> Ack:
        """Extend the lease of its owner."""
        if not self.owner or self.owner != controller_id:
            return self._refuse(
                self._conflict(controller_id, now_s) or "there is no lease to renew"
            )
        if not 0 < ttl_s <= _MAX_TTL_S:
            return self._refuse(f"ttl_s = {ttl_s} is outside 0..{_MAX_TTL_S:g}")
        self._ends_s = now_s + ttl_s
        return Ack(True, self.epoch, "renewed")

    def release(self, controller_id: str, now_s: float) -> Ack:
        """Give the lease back: the default comes back at once."""
        if not self.owner:
            return Ack(True, self.epoch, "there was no lease")
        if conflict := self._conflict(controller_id, now_s):
            return self._refuse(conflict)
        self._to_default()
        return Ack(True, self.epoch, "released")

    def _to_default(self) -> None:
        self.decision, self._ends_s = self.default, math.inf
        self.epoch += 1  # going back is a change too: outcomes tell which rules served them

    def _conflict(self, controller_id: str, now_s: float) -> str:
        if self.owner and self.owner != controller_id and now_s < self._ends_s:
            left_s = self._ends_s - now_s
            return f"controller {self.owner!r} owns this engine for another {left_s:.1f} s"
        return ""

    def _refuse(self, reason: str) -> Ack:
        return Ack(False, self.epoch, reason)


def clamp(limits: Limits, envelope: Envelope) -> tuple[Limits, dict[str, float]]:
    """Limits inside the envelope, and the values that had to be changed (as they are now)."""
    inside = {
        name: _between(getattr(limits, name), *_bounds(knob, envelope))
        for name, knob in KNOBS.items()
        if knob.unit
    }
    changed = {name: value for name, value in inside.items() if value != getattr(limits, name)}
    return replace(limits, **inside), changed


def _bounds(knob: Knob, envelope: Envelope) -> tuple[Any, Any]:
    high = getattr(envelope, knob.high) if isinstance(knob.high, str) else knob.high
    if knob.needs and not getattr(envelope, knob.needs):
        high = knob.low
    return knob.low, high


def _between(value: Any, low: Any, high: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return low
    return max(low, min(value, high))

"""Who may steer this engine, until when, and what is in force?

One controller at a time; epochs only grow; a decision holds a lease, and when the
lease ends the engine's default comes back by itself. A person outranks controllers, and
the kill switch outranks both. Pure logic, no vLLM.
"""

import math
from dataclasses import replace
from typing import Any

from serving.contracts import PERSON, PINNED_S, Ack, Decision, Envelope, Limits, Parts, Stopped
from serving.contracts.limits import Knob
from serving.contracts.rules import KNOBS
from serving.policies import complete_params

_MAX_TTL_S = 24 * 3600.0
_MAX_EPOCH = 2**53  # larger integers do not survive JSON and msgpack everywhere
_MAX_PART = 1e6  # more replicas than any fleet has


class Lease:
    """The decision in force and its owner.

    Args:
        default: what is in force without a controller.
        envelope: limits fixed at start-up; decisions are clamped to it.

    Attributes:
        ends_s: when the lease ends; infinite without one.
        parts: what its owner divided among replicas gives this one; none without a lease.
        stopped: the kill switch, while it is on. It is the engine's state and no lease: it
            holds whoever comes or goes, until `start` or the end of the process.
    """

    def __init__(self, default: Decision, envelope: Envelope) -> None:
        self.default, self.envelope = default, envelope
        self.decision = default
        self.epoch = 0
        self.stopped: Stopped | None = None
        self.ends_s = math.inf
        self.parts: Parts = {}

    @property
    def owner(self) -> str:
        """Id of the controller that holds the lease; empty when none does."""
        return self.decision.controller_id

    def left_s(self, now_s: float) -> float:
        """Seconds until the lease ends; 0 without one."""
        return max(0.0, self.ends_s - now_s) if self.owner else 0.0

    def expire(self, now_s: float) -> bool:
        """End an overdue lease; True if the default has just come back."""
        if now_s < self.ends_s:
            return False
        self._to_default()
        return True

    def accept(self, decision: Decision, now_s: float) -> Ack:
        """Put a decision in force if its controller, epoch, policy and values are acceptable."""
        if not decision.controller_id:
            return self._refuse("controller_id is empty")
        if hindrance := self._halted(now_s) or self._conflict(decision.controller_id, now_s):
            return self._refuse(hindrance)
        if not self.epoch < decision.epoch <= _MAX_EPOCH:
            return self._refuse(
                f"epoch {decision.epoch} is not above the present {self.epoch} (up to {_MAX_EPOCH})"
            )
        if refusal := _strange_ttl(decision.controller_id, decision.ttl_s):
            return self._refuse(refusal)
        try:
            params = complete_params(decision.policy, decision.params)
        except ValueError as error:
            return self._refuse(str(error))
        limits, clamped = clamp(decision.limits, self.envelope)
        if decision.controller_id != self.owner:
            self.parts = {}
        self.decision = replace(decision, params=params, limits=limits)
        self.epoch, self.ends_s = decision.epoch, now_s + decision.ttl_s
        return Ack(True, self.epoch, "in force", clamped)

    def renew(
        self, controller_id: str, ttl_s: float, now_s: float, parts: Parts | None = None
    ) -> Ack:
        """Extend the lease of its owner, and take over `parts` unless they are None."""
        if halted := self._halted(now_s):
            return self._refuse(halted)
        if not self.owner or self.owner != controller_id:
            return self._refuse(
                self._conflict(controller_id, now_s) or "there is no lease to renew"
            )
        if refusal := _strange_ttl(controller_id, ttl_s):
            return self._refuse(refusal)
        if refusal := _strange_part(parts or {}):
            return self._refuse(refusal)
        self.ends_s = now_s + ttl_s
        if parts is not None:
            self.parts = parts
        return Ack(True, self.epoch, "renewed")

    def release(self, controller_id: str, now_s: float) -> Ack:
        """Give the lease back: the default comes back at once."""
        if not self.owner:
            return Ack(True, self.epoch, "there was no lease")
        if conflict := self._conflict(controller_id, now_s):
            return self._refuse(conflict)
        self._to_default()
        return Ack(True, self.epoch, "released")

    def stop(self, by: str, reason: str, now_s: float) -> Ack:
        """Return to the default and refuse every decision until `start`, whoever owns the lease."""
        if not by:
            return self._refuse("by is empty: say who stops the engine")
        if self.stopped is not None:
            return Ack(True, self.epoch, self._halted(now_s))
        if self.owner:
            self._to_default()
        self.stopped = Stopped(by, now_s, reason)
        return Ack(True, self.epoch, "stopped")

    def start(self) -> Ack:
        """Let decisions in again; what was in force before does not come back by itself."""
        was, self.stopped = self.stopped, None
        return Ack(True, self.epoch, f"it was stopped by {was.by}" if was else "it was not stopped")

    def _halted(self, now_s: float) -> str:
        return stopped_by(self.stopped, now_s) if self.stopped else ""

    def _to_default(self) -> None:
        self.decision, self.ends_s, self.parts = self.default, math.inf, {}
        self.epoch += 1  # going back is a change too: outcomes tell which rules served them

    def _conflict(self, controller_id: str, now_s: float) -> str:
        if controller_id.startswith(PERSON):
            return ""
        if self.owner and self.owner != controller_id and now_s < self.ends_s:
            return owned_by(self.owner, self.ends_s - now_s)
        return ""

    def _refuse(self, reason: str) -> Ack:
        return Ack(False, self.epoch, reason)


def stopped_by(stopped: Stopped, now_s: float) -> str:
    """Who has used the kill switch, when and why, in words."""
    why = f" ({stopped.reason})" if stopped.reason else ""
    since_s = now_s - stopped.since_s
    return f"stopped by {stopped.by} {since_s:.0f} s ago{why}; `hmas start` ends that"


def owned_by(owner: str, left_s: float) -> str:
    """Who holds the lease, and for how long, in words."""
    if not owner.startswith(PERSON):
        return f"controller {owner!r} owns this engine for another {left_s:.1f} s"
    pinned = left_s > PINNED_S / 2
    until = "until it is released" if pinned else f"for another {left_s:.0f} s"
    return f"{owner.removeprefix(PERSON)} holds this engine {until} (`hmas release` ends that)"


def _strange_ttl(controller_id: str, ttl_s: float) -> str:
    longest_s = PINNED_S if controller_id.startswith(PERSON) else _MAX_TTL_S
    return "" if 0 < ttl_s <= longest_s else f"ttl_s = {ttl_s} is outside 0..{longest_s:g}"


def _strange_part(parts: Parts) -> str:
    for tenant, part in parts.items():
        for key, factor in (("share", part.share), ("limits", part.limits)):
            if not 0.0 <= factor <= _MAX_PART:
                return f"parts.{tenant[:40]}.{key} = {factor} is outside 0..{_MAX_PART:g}"
    return ""


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

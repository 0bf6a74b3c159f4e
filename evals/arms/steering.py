"""How does an arm keep a policy in force, or change it, without the control loop?

Stock limits, the rules that go with the policy, a lease of its own. Used by the fixed arms, live
and simulated, and by those that switch at random or in hindsight.
"""

from dataclasses import replace

from evals.suite.arms import (
    FIXED_CONTROLLER,
    Arm,
    fixed_decision,
    limits_not_taken,
    parse_arm,
)
from serving.contracts import Envelope, Limits
from serving.engines.profile import EngineProfile
from serving.engines.protocol import Engine

TTL_S = 7200.0
RENEW_S = 3600.0


class ArmError(RuntimeError):
    """The engine could not be put under an arm; says why."""


class Steering:
    """Puts one fixed arm after the other in force, on an engine that nobody else steers.

    The limits are the machine's; `name` is of the arm that is run, for errors. `in_force` is the
    fixed arm whose policy and rules act; empty before the first.
    """

    def __init__(
        self, engine: Engine, machine: EngineProfile | Envelope, name: str, ttl_s: float = TTL_S
    ) -> None:
        self._engine, self._name, self._ttl_s = engine, name, ttl_s
        self._limits = Limits(machine.max_active_requests, machine.token_budget)
        self.in_force = ""

    def put_in_force(self, arm: Arm, reason: str) -> None:
        """Change policy and rules to those of a fixed arm.

        Raises:
            ArmError: the engine refused, or took other limits than asked.
        """
        epoch = self._engine.snapshot().epoch + 1
        decision = replace(fixed_decision(arm, self._limits, epoch, self._ttl_s), reason=reason)
        ack = self._engine.apply(decision)
        if not ack.accepted:
            raise ArmError(f"{self._name}: the engine refused: {ack.reason}")
        if changed := limits_not_taken(decision.limits, self._engine.snapshot().limits):
            self.release()
            raise ArmError(f"{self._name}: the engine runs with other limits: {changed}")
        self.in_force = arm.name

    def go_on_with(self, name: str, reason: str) -> None:
        """Put the fixed arm of this name in force, or renew it where it is.

        Raises:
            ArmError: as the two.
        """
        if name == self.in_force:
            self.renew()
        else:
            self.put_in_force(parse_arm(name), reason)

    def renew(self) -> None:
        """Keep what is in force.

        Raises:
            ArmError: the lease was lost.
        """
        renewed = self._engine.renew(FIXED_CONTROLLER, self._ttl_s)
        if not renewed.accepted:
            raise ArmError(f"{self._name}: the lease was lost: {renewed.reason}")

    def release(self) -> None:
        """Give the lease back: the engine returns to its default."""
        self._engine.release(FIXED_CONTROLLER)

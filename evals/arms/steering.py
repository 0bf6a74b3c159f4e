"""How does an arm keep a policy in force, or change it, without the control loop?

Stock limits, the rules that go with the policy, a lease of its own. Used by the fixed arms
and by those that switch at random or in hindsight.
"""

from dataclasses import replace

from evals.suite.arms import (
    FIXED_CONTROLLER,
    Arm,
    fixed_decision,
    limits_not_taken,
    parse_arm,
)
from serving.contracts import Limits
from serving.engines.profile import EngineProfile
from serving.engines.protocol import Engine

TTL_S = 7200.0
RENEW_S = 3600.0


class Steering:
    """Puts one fixed arm after the other in force.

    Args:
        engine: of one case, nobody else's.
        profile: its machine; the limits are the machine's.
        name: of the arm that is run, for errors.

    Attributes:
        in_force: name of the fixed arm whose policy and rules act; empty before the first.
    """

    def __init__(self, engine: Engine, profile: EngineProfile, name: str) -> None:
        self._engine, self._name = engine, name
        self._limits = Limits(profile.max_active_requests, profile.token_budget)
        self.in_force = ""

    def put_in_force(self, arm: Arm, reason: str) -> None:
        """Change policy and rules to those of a fixed arm.

        Raises:
            RuntimeError: the engine refused, or took other limits than asked.
        """
        epoch = self._engine.snapshot().epoch + 1
        decision = replace(fixed_decision(arm, self._limits, epoch, TTL_S), reason=reason)
        ack = self._engine.apply(decision)
        if not ack.accepted:
            raise RuntimeError(f"{self._name}: the engine refused: {ack.reason}")
        if changed := limits_not_taken(decision.limits, self._engine.snapshot().limits):
            raise RuntimeError(f"{self._name}: the engine runs with other limits: {changed}")
        self.in_force = arm.name

    def go_on_with(self, name: str, reason: str) -> None:
        """Put the fixed arm of this name in force, or renew it where it is.

        Raises:
            RuntimeError: as the two.
        """
        if name == self.in_force:
            self.renew()
        else:
            self.put_in_force(parse_arm(name), reason)

    def renew(self) -> None:
        """Keep what is in force.

        Raises:
            RuntimeError: the lease was lost.
        """
        renewed = self._engine.renew(FIXED_CONTROLLER, TTL_S)
        if not renewed.accepted:
            raise RuntimeError(f"{self._name}: the lease was lost: {renewed.reason}")

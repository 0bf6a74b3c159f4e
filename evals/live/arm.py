"""How is a running server put under an arm for the length of a replay?

Context managers around the engine's control routes; called by the live runner and
the demo. They hold a lease, so a crash here lets the engine go back by itself.
"""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from evals.suite.arms import (
    FIXED_CONTROLLER,
    Arm,
    ControllerOptions,
    controller_config,
    fixed_decision,
    limits_not_taken,
)
from serving.contracts import Limits
from serving.engines.protocol import Engine

if TYPE_CHECKING:
    from graphs.control_loop import ControlLoop
    from hmas_agents.config import Config

FIXED_TTL_S = 30.0
RENEW_S = 5.0


class ArmError(RuntimeError):
    """The running engine could not be put under an arm; says why."""


@contextmanager
def steered(
    arm: Arm,
    engine: Engine,
    controller: ControllerOptions,
    overrides: Mapping[str, object],
    run_label: str = "",
) -> Iterator[None]:
    """Steer `engine` as the arm says until the block ends; then the lease is released.

    `stock` means no lease: the engine's default policy and its start-up limits. `overrides` are
    dotted configuration keys of an arm with the control loop.

    Raises:
        ArmError: somebody else's controller owns the engine, or a decision was refused,
            or the controller stopped before the block ended.
    """
    if not arm.live:
        raise ArmError(f"{arm.name}: simulated only; use --engine sim, or leave it out of arms")
    snapshot = engine.snapshot()
    if snapshot.controller_id:
        raise ArmError(
            f"controller {snapshot.controller_id!r} owns the engine: stop it, or wait for its lease"
        )
    if arm.kind == "stock":
        if snapshot.policy != "fcfs":
            raise ArmError(
                f"{arm.name}: the server's default policy is {snapshot.policy!r}, not 'fcfs'"
            )
        yield
        return
    stop = threading.Event()
    if arm.kind == "fixed":
        _apply_fixed(arm, engine)
        steer = partial(_hold_fixed, engine, stop)
    else:
        config = controller_config(controller, overrides, arm)
        steer = partial(_control, _take_charge(engine, config, controller, run_label), stop)
    with ThreadPoolExecutor(1, arm.name) as pool:
        steering = pool.submit(steer)
        try:
            yield
        finally:
            stop.set()
            crash = steering.exception()
    if crash is not None:
        raise ArmError(f"{arm.name}: the controller stopped early: {crash}") from crash


def _apply_fixed(arm: Arm, engine: Engine) -> None:
    snapshot = engine.snapshot()
    limits = Limits(snapshot.envelope.max_active_requests, snapshot.envelope.token_budget)
    decision = fixed_decision(arm, limits, snapshot.epoch + 1, FIXED_TTL_S)
    ack = engine.apply(decision)
    if not ack.accepted:
        raise ArmError(f"{arm.name}: the engine refused: {ack.reason}")
    if changed := limits_not_taken(decision.limits, engine.snapshot().limits):
        engine.release(FIXED_CONTROLLER)
        raise ArmError(f"{arm.name}: the engine runs with other limits: {changed}")


def _hold_fixed(engine: Engine, stop: threading.Event) -> None:
    try:
        while not stop.wait(RENEW_S):
            ack = engine.renew(FIXED_CONTROLLER, FIXED_TTL_S)
            if not ack.accepted:
                raise ArmError(f"the lease was lost: {ack.reason}")
    finally:
        engine.release(FIXED_CONTROLLER)


def _take_charge(
    engine: Engine, config: "Config", controller: ControllerOptions, label: str
) -> "ControlLoop":
    from graphs.control_loop import ControllerConflict, ControlLoop

    loop = ControlLoop(engine, config, controller.ledger_path, run_label=label)
    try:
        loop.take_charge()
    except BaseException as error:
        loop.close()
        if isinstance(error, ControllerConflict):
            raise ArmError(str(error)) from error
        raise
    return loop


def _control(loop: "ControlLoop", stop: threading.Event) -> None:
    with loop:
        loop.run_forever(stop)

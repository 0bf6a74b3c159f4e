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

from evals.arms.steering import ArmError, Steering
from evals.suite.arms import Arm, ControllerOptions, controller_config
from serving.engines.protocol import Engine

if TYPE_CHECKING:
    from graphs.control_loop import ControlLoop
    from hmas_agents.config import Config

FIXED_TTL_S = 30.0
RENEW_S = 5.0


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
        steering = Steering(engine, snapshot.envelope, arm.name, FIXED_TTL_S)
        steering.put_in_force(arm, "fixed for the whole run")
        steer = partial(_hold_fixed, steering, stop)
    else:
        config = controller_config(controller, overrides, arm)
        steer = partial(_control, _take_charge(engine, config, controller, run_label), stop)
    with ThreadPoolExecutor(1, arm.name) as pool:
        holding = pool.submit(steer)
        try:
            yield
        finally:
            stop.set()
            crash = holding.exception()
    if crash is not None:
        raise ArmError(f"{arm.name}: the controller stopped early: {crash}") from crash


def _hold_fixed(steering: Steering, stop: threading.Event) -> None:
    try:
        while not stop.wait(RENEW_S):
            steering.renew()
    finally:
        steering.release()


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

"""What does the twin's process do? Forecasts for one situation after the other.

Started by `hmas_agents.twin` in a spawned process, the only place of the controller
where vLLM is imported.
"""

import gc
import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from hmas_agents.forecast import forecast
from hmas_agents.situation import Situation
from serving.contracts import Limits

NICENESS = 10
READY = "ready"


@dataclass(frozen=True, slots=True)
class Ask:
    """One future under one candidate, from the situation that was sent before.

    `limits` take the place of those in force; None leaves them.
    """

    policy: str
    params: dict[str, float]
    seed: int
    horizon_s: float
    limits: Limits | None = None


def answer(situation: Situation, ask: Ask) -> float:
    """The attainment of one future under one candidate. Raises as `forecast`."""
    if ask.limits is not None:
        snapshot = replace(situation.snapshot, limits=ask.limits)
        situation = replace(situation, snapshot=snapshot)
    return forecast(
        situation, ask.policy, ask.params, seed=ask.seed, horizon_s=ask.horizon_s
    ).attainment


def serve(pipe: Connection) -> None:
    """Say READY; then take a Situation without an answer, and answer each Ask.

    The answer is an attainment (float) or an error (str).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller to handle
    os.nice(NICENESS)
    import serving.engines.compiled  # noqa: F401  (warm: the import takes about 10 s)

    gc.collect()
    gc.freeze()  # vLLM's modules stay: no collection has to go through them again
    pipe.send(READY)
    situation: Situation | None = None
    while True:
        try:
            message: Situation | Ask = pipe.recv()
        except EOFError:
            return
        if isinstance(message, Situation):
            situation = message
            continue
        try:
            assert situation is not None
            said: float | str = answer(situation, message)
        except Exception as error:  # noqa: BLE001  (reported to the controller, which goes on)
            said = f"{type(error).__name__}: {error}"
        pipe.send(said)

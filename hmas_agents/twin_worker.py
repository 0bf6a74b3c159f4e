"""What does the twin's process do? Replays jobs in the simulator until its pipe closes.

Started by `hmas_agents.twin` in a spawned process, the only place of the controller
where vLLM is imported.
"""

import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

from serving.contracts import Decision, Limits, TraceRequest
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

NICENESS = 10
READY = "ready"
FOREVER_S = 24 * 3600.0  # the longest lease an engine grants


@dataclass(frozen=True, slots=True)
class Job:
    """One replay: this window, on this machine, under this policy."""

    profile: EngineProfile
    settings: EngineSettings
    requests: tuple[TraceRequest, ...]
    policy: str
    params: dict[str, float]
    limits: Limits


def serve(pipe: Connection) -> None:
    """Say READY, then answer each Job with an attainment (float) or an error (str)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller to handle
    os.nice(NICENESS)
    import serving.engines.simulated  # noqa: F401  (warm: the import takes about 10 s)

    pipe.send(READY)
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        try:
            answer: float | str = replay(job)
        except Exception as error:  # noqa: BLE001  (reported to the controller, which goes on)
            answer = f"{type(error).__name__}: {error}"
        pipe.send(answer)


def replay(job: Job) -> float:
    """Attainment of the window from an empty engine: requests that met all targets over all."""
    from serving.engines.simulated import SimulatedEngine

    engine = SimulatedEngine(job.profile, job.settings)
    ack = engine.apply(
        Decision("twin", engine.snapshot().epoch + 1, FOREVER_S, job.policy, job.params, job.limits)
    )
    if not ack.accepted:
        raise RuntimeError(f"the simulated engine refused {job.policy}: {ack.reason}")
    outcomes = engine.run(job.requests)
    return sum(outcome.met for outcome in outcomes) / max(1, len(outcomes))

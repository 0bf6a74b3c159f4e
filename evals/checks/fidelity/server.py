"""On which server and machine is measured, and was it left alone?

The server is one of our own with a step log, or a running one that has one. Called by the
commands; both ends of a measurement, clients and step log, are on this machine.
"""

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from evals.live.own_server import own_server
from evals.live.server import Server, connect
from evals.machines.steps import Steps, read_steps
from evals.progress import CaseProgress
from evals.suite.suite import SMALL_MACHINE
from serving.contracts import Snapshot
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine, read_token
from serving.engines.protocol import Engine

BUSY_ELSEWHERE = 0.05  # share of the CPUs from which on a reader must be warned


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """The options of the command: a running server at `url`, or where that is empty our own."""

    url: str
    token_file: Path
    step_log: Path
    port: int
    model: str
    out: Path


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """A server that logs its steps; of a running one neither arguments nor pid are known."""

    live: Server
    engine: Engine
    step_log: Path
    arguments: tuple[str, ...] = ()
    pid: int | None = None

    def steps(self, from_s: float, to_s: float) -> Steps:
        """The steps that ended between two Unix times."""
        return read_steps(self.step_log).between(from_s, to_s)


@contextmanager
def measured_server(
    choice: ServerChoice, progress: CaseProgress, settings: EngineSettings | None = None,
    arguments: Sequence[str] = SMALL_MACHINE,
) -> Iterator[MeasuredServer]:  # fmt: skip
    """The chosen server; one that was started here is stopped at the end.

    Raises:
        ServerError, ArmError, EngineUnavailable, CalibrationError: there is none; says why.
    """
    with ExitStack() as stack:
        if choice.url:
            read_steps(choice.step_log)  # fails here rather than after minutes
            url = choice.url.rstrip("/").removesuffix("/v1")
            engine = stack.enter_context(closing(LiveEngine(url, read_token(choice.token_file))))
            yield MeasuredServer(connect(url, engine), engine, choice.step_log)
            return
        log = choice.out / "steps.csv"
        own = stack.enter_context(own_server(
            settings or EngineSettings(), choice.out, progress.note, port=choice.port,
            model=choice.model, arguments=arguments, step_log=log,
        ))  # fmt: skip
        engine = stack.enter_context(own.engine())
        yield MeasuredServer(connect(own.url, engine), engine, log, tuple(arguments), own.pid)


def machine_facts(snapshot: Snapshot) -> dict[str, Any]:
    """Machine, versions and date, for the provenance."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{psutil.cpu_count()} x {_cpu_name()}",
        "accelerator": _accelerator(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "vllm": snapshot.vllm_version,
        "niceness": psutil.Process().nice(),
    }


class OtherLoad:
    """What share of the CPUs others took since this was made.

    Not known without the pid of the measured server.
    """

    def __init__(self, server_pid: int | None) -> None:
        self._pid = server_pid
        self._began_s, self._others_s = time.monotonic(), self._cpu_s()

    def share(self) -> float | None:
        """0..1 of all CPUs, this process and the server with its children left out."""
        if self._others_s is None or (now_s := self._cpu_s()) is None:
            return None
        elapsed_s = (time.monotonic() - self._began_s) * (psutil.cpu_count() or 1)
        return min(1.0, max(0.0, (now_s - self._others_s) / max(elapsed_s, 1e-9)))

    def _cpu_s(self) -> float | None:
        if self._pid is None:
            return None
        times = psutil.cpu_times()
        busy_s = float(times.user + times.system + times.nice)
        server = psutil.Process(self._pid)
        for process in (psutil.Process(), server, *server.children(recursive=True)):
            used = process.cpu_times()
            busy_s -= used.user + used.system
        return busy_s


def warning(share: float | None) -> str:
    """One line for the reader of the figures; empty where others were quiet."""
    if share is None or share < BUSY_ELSEWHERE:
        return ""
    return (
        f"other processes took {share:.0%} of the CPUs meanwhile: step times hold for a machine "
        "as busy as that, and scatter; measure again when nothing else runs"
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return ""
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"

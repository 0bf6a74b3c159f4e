"""On which server is measured? One of our own with a step log, or a running one that has one.

Called by the commands; both ends of a measurement, clients and step log, are on this machine.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evals.live.own_server import own_server
from evals.live.run import LiveServer, served_model
from evals.machines.steps import Steps, read_steps
from evals.suite.suite import SMALL_MACHINE
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine, read_token

_SCHEDULER = "evals.checks.fidelity.step_log.step_log_scheduler"
_VARIABLE = "HMAS_STEP_LOG"


@dataclass(frozen=True, slots=True)
class ServerChoice:
    """A running server at `url`, or with an empty `url` one that is started on `port`.

    Attributes:
        url: the running server.
        token_file: its control token.
        step_log: the file that it writes its steps to.
        port: of the server that is started.
        model: to load there; empty means SmolLM2.
        out: gets the started server's log, token and steps.
    """

    url: str
    token_file: Path
    step_log: Path
    port: int
    model: str
    out: Path


@dataclass(frozen=True, slots=True)
class MeasuredServer:
    """A server that logs its steps; of a running one neither arguments nor pid are known."""

    live: LiveServer
    step_log: Path
    arguments: tuple[str, ...]
    pid: int | None

    def steps(self, from_s: float, to_s: float) -> Steps:
        """The steps that ended between two Unix times."""
        return read_steps(self.step_log).between(from_s, to_s)


@contextmanager
def measured_server(
    choice: ServerChoice, settings: EngineSettings, arguments: Sequence[str] = SMALL_MACHINE
) -> Iterator[MeasuredServer]:
    """The chosen server; one that was started here is stopped at the end.

    Raises:
        ServerError, ArmError, EngineUnavailable, CalibrationError: there is none; says why.
    """
    if choice.url:
        url = choice.url.rstrip("/").removesuffix("/v1")
        read_steps(choice.step_log)  # fails here rather than after minutes
        token = read_token(choice.token_file)
        with _connected(url, served_model(url)[0], token) as live:
            yield MeasuredServer(live, choice.step_log, (), None)
        return
    choice.out.mkdir(parents=True, exist_ok=True)
    log = (choice.out / "steps.csv").resolve()
    log.write_text("")
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(log)  # the server inherits it
    try:
        with own_server(
            settings, choice.out, port=choice.port, model=choice.model,
            arguments=[*arguments, "--scheduler-cls", _SCHEDULER],
        ) as own, _connected(own.url, own.model, read_token(own.token_file)) as live:  # fmt: skip
            yield MeasuredServer(live, log, tuple(arguments), own.pid)
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before


@contextmanager
def _connected(url: str, model: str, token: str) -> Iterator[LiveServer]:
    engine = LiveEngine(url, token)
    try:
        yield LiveServer(url, model, engine)
    finally:
        engine.close()

"""On which server is measured? One of our own with a step log, or a running one that has one.

Called by the commands; both ends of a measurement, clients and step log, are on this machine.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from evals.live.own_server import own_server
from evals.live.server import Server, connect
from evals.machines.steps import Steps, read_steps
from evals.progress import CaseProgress
from evals.suite.suite import SMALL_MACHINE
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine, read_token
from serving.engines.protocol import Engine


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

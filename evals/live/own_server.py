"""How does an eval get a real server of its own? vLLM with the hook, for one block.

The embedded SmolLM2-135M, or a model that the caller names. It ends answers at the length that
a client wants, so that its scheduler need not know it. The server is stopped whatever happens.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from evals.suite.suite import SMALL_MACHINE
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine, read_token
from serving.launch.launcher import ServerError, running_server, write_token
from serving.launch.model import embedded, is_complete

MODEL_NAME = "served"
_ANSWER_LENGTH = "evals.live.answer_length:AnswerLength"
_STEP_LOG = "evals.checks.fidelity.step_log.step_log_scheduler"
_STEP_LOG_VARIABLE = "HMAS_STEP_LOG"


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that runs for us; `pid` is that of its API server."""

    url: str
    model: str
    token_file: Path
    log: Path
    pid: int

    def engine(self) -> closing[LiveEngine]:
        """Its control routes, for one block."""
        return closing(LiveEngine(self.url, read_token(self.token_file)))


@contextmanager
def own_server(
    settings: EngineSettings,
    out: Path,
    note: Callable[[str], None] = lambda _line: None,
    *,
    port: int,
    model: str = "",
    arguments: Sequence[str] = SMALL_MACHINE,
    step_log: Path | None = None,
) -> Iterator[OwnServer]:
    """A vLLM with the hook on 127.0.0.1:port, which believes its clients (they are ours).

    SIGTERM stops the server, as Ctrl-C does.

    SmolLM2 where no model is named. `out` gets log and token, `step_log` a line for each step;
    `note` is told that one has to wait.

    Raises:
        ServerError: no model, the port is taken, or vLLM did not start.
    """
    if not model and not is_complete(embedded()):
        raise ServerError(f"no model in {embedded()}: run `make model` first, or name one")
    out.mkdir(parents=True, exist_ok=True)
    token_file, log = out / "token", out / "vllm.log"
    note(f"starting vLLM with the hook (1-2 minutes; log: {log})")
    token = write_token(token_file)
    model = model or str(embedded().resolve())
    settings = settings.under(settings.contract.model_copy(update={"believe_clients": True}))
    arguments = ["--served-model-name", MODEL_NAME, "--logits-processors", _ANSWER_LENGTH,
                 *arguments]  # fmt: skip
    kept = os.environ.get(_STEP_LOG_VARIABLE)
    if step_log is not None:
        step_log.write_text("")
        os.environ[_STEP_LOG_VARIABLE] = str(step_log.resolve())  # the server inherits it
        arguments += ["--scheduler-cls", _STEP_LOG]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_server(settings, model, arguments, port=port, token=token, log=log) as process:
            yield OwnServer(f"http://127.0.0.1:{port}", MODEL_NAME, token_file, log, process.pid)
    finally:
        signal.signal(signal.SIGTERM, before)
        if kept is None:
            os.environ.pop(_STEP_LOG_VARIABLE, None)
        else:
            os.environ[_STEP_LOG_VARIABLE] = kept

"""How does an eval get a real server of its own? vLLM with the hook, for one block.

The embedded SmolLM2-135M, or a model that the caller names. Called by
`hmas eval run --serve` and `hmas soak`; the server is stopped whatever happens.
"""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evals.suite.suite import SMALL_MACHINE
from serving.contracts.settings import EngineSettings
from serving.launch.launcher import ServerError, running_server, write_token
from serving.launch.model import SMOLLM2, is_complete

MODEL_NAME = "served"


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that runs for us; `pid` is that of its API server."""

    url: str
    model: str
    token_file: Path
    log: Path
    pid: int


def believing(settings: EngineSettings) -> EngineSettings:
    """The same settings for a server whose only client is the load generator, which is believed."""
    return settings.under(settings.contract.model_copy(update={"believe_clients": True}))


@contextmanager
def own_server(
    settings: EngineSettings,
    out: Path,
    *,
    port: int,
    model: str = "",
    arguments: Sequence[str] = SMALL_MACHINE,
) -> Iterator[OwnServer]:
    """A vLLM with the hook on 127.0.0.1:port; log and token lie in `out`.

    An empty `model` means SmolLM2. SIGTERM stops the server, as Ctrl-C does.

    Raises:
        ServerError: no model, the port is taken, or vLLM did not start.
    """
    if not model and not is_complete(SMOLLM2):
        raise ServerError(f"no model in {SMOLLM2}: run `make model` first, or name one")
    out.mkdir(parents=True, exist_ok=True)
    token_file, log = out / "token", out / "vllm.log"
    token = write_token(token_file)
    model = model or str(SMOLLM2.resolve())
    named = ["--served-model-name", MODEL_NAME]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_server(
            believing(settings), model, [*named, *arguments], port=port, token=token, log=log
        ) as process:
            yield OwnServer(f"http://127.0.0.1:{port}", MODEL_NAME, token_file, log, process.pid)
    finally:
        signal.signal(signal.SIGTERM, before)

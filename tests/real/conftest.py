"""One real vLLM server (CPU or GPU) with the hook, shared by the tests of this folder."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.contracts import Contract
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine
from serving.launch.launcher import running_server
from serving.launch.model import SMOLLM2, is_complete

MODEL = "smollm2"
TOKEN = "test-token"
GATEWAY_TOKEN = "of-the-test-gateway"
SETTINGS = EngineSettings(
    slo_scale=4.0, gateway="token", contract=Contract(believe_clients=True)
)


@dataclass(frozen=True)
class RealServer:
    url: str
    token_file: Path
    log: Path
    pid: int = 0

    def engine(self) -> LiveEngine:
        return LiveEngine(self.url, TOKEN)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    assert is_complete(SMOLLM2), f"no model in {SMOLLM2}: run `make model`"
    folder = tmp_path_factory.mktemp("vllm")
    token_file = folder / "token"
    token_file.write_text(TOKEN + "\n")
    log = folder / "vllm.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "--served-model-name", MODEL, "--max-model-len", "2048",
        "--max-num-seqs", "16", "--enforce-eager",
        "--scheduler-cls", "tests.real.broken_policy.SchedulerWithBrokenPolicy",
        "--logits-processors", "evals.live.answer_length:AnswerLength",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMAS_GATEWAY_TOKEN", GATEWAY_TOKEN)
        with running_server(
            SETTINGS, str(SMOLLM2), arguments, port=port, token=TOKEN, log=log
        ) as process:
            yield RealServer(f"http://127.0.0.1:{port}", token_file, log, process.pid)


@pytest.fixture
def engine(server: RealServer) -> Iterator[LiveEngine]:
    """The server's engine, without a controller before and after."""
    engine = server.engine()
    yield engine
    if owner := engine.snapshot().controller_id:
        engine.release(owner)
    engine.close()

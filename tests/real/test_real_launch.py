"""Does `hmas serve` put in force what it was told, also with two API servers on one engine?

A server of its own, started by the command as a user types it.
"""

import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict

from serving.engines.live import LiveEngine
from serving.launch.launcher import running_command
from serving.launch.model import SMOLLM2, is_complete
from tests.real.conftest import GATEWAY_TOKEN, TOKEN, RealServer
from tests.real.test_real_engine import wait_for

pytestmark = pytest.mark.real_vllm

SERVE = "import sys; from hmas_agents.cli import main; main(sys.argv[1:])"
SENT = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    assert is_complete(SMOLLM2), f"no model in {SMOLLM2}: run `make model`"
    folder = tmp_path_factory.mktemp("hmas-serve")
    token_file, log = folder / "token", folder / "vllm.log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-c", SERVE, "serve", str(SMOLLM2), "--gateway", "token",
        "--additional-config", '{"x": 1}', "--api-server-count", "2",
        "--token-file", str(token_file), "--model-file", "", "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", "m", "--max-model-len", "512",
        "--max-num-seqs", "8", "--enforce-eager",
    ]  # fmt: skip
    environment = {
        **os.environ, "HMAS_TOKEN": TOKEN, "HMAS_GATEWAY_TOKEN": GATEWAY_TOKEN,
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics"),
    }  # fmt: skip
    (folder / "metrics").mkdir()
    with running_command(command, environment, port=port, log=log):
        yield RealServer(f"http://127.0.0.1:{port}", token_file, log)


@pytest.fixture(scope="module")
def engine(server: RealServer) -> Iterator[LiveEngine]:
    engine = server.engine()
    yield engine
    engine.close()


def complete(server: RealServer, tenant: str, **headers: str) -> None:
    """One request on a connection of its own, so that either API server may get it."""
    body = {"model": "m", "prompt": "Hello", "max_tokens": 2, "vllm_xargs": {"tenant": tenant}}
    reply = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=120)
    assert reply.status_code == httpx.codes.OK, reply.text


def test_a_client_is_not_believed_beside_the_users_own_additional_config(
    server: RealServer, engine: LiveEngine
) -> None:
    """Before, '{"x": 1}' replaced our settings, and the claim held."""
    head = engine.snapshot().journal_head
    complete(server, "claimed")
    token = {"x-hmas-gateway-token": GATEWAY_TOKEN, "x-hmas-tenant": "named"}
    complete(server, "claimed", **token)
    wait_for(lambda: len(engine.journal(head).outcomes) == 2)
    assert [o.tenant for o in engine.journal(head).outcomes] == ["default", "named"]


def test_two_api_servers_show_the_same_totals_and_they_add_up(
    server: RealServer, engine: LiveEngine
) -> None:
    token = {"x-hmas-gateway-token": GATEWAY_TOKEN, "x-hmas-tenant": "both"}
    sent = 0

    def both_served() -> bool:  # which one takes a connection, the machine's kernel decides
        nonlocal sent
        with ThreadPoolExecutor(SENT) as pool:
            list(pool.map(lambda _: complete(server, "", **token), range(SENT)))
        sent += SENT
        files = list(server.log.with_name("metrics").glob("counter_*.db"))
        served = [{key: n for key, n, *_ in MmapedDict.read_all_values_from_file(f)} for f in files]
        each = [sum(n for key, n in file.items() if "request_success" in key) for file in served]
        return len([n for n in each if n > 0]) == 2

    wait_for(both_served)

    def finished() -> float:
        text = httpx.get(f"{server.url}/metrics").text
        lines = [line for line in text.splitlines() if 'tenant="both"' in line]
        (line,) = (one for one in lines if one.startswith("hmas_requests_finished_total{"))
        (counted,) = (one for one in lines if one.startswith("hmas_ttft_seconds_count{"))
        assert line.rsplit(" ", 1)[1] == counted.rsplit(" ", 1)[1]
        return float(line.rsplit(" ", 1)[1])

    def followed() -> bool:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        counted = [line for line in lines if line.startswith("hmas_ttft_seconds_count{")]
        return any('tenant="both"' in line for line in counted)

    wait_for(lambda: all(followed() for _ in range(10)), 20)
    wait_for(lambda: {finished() for _ in range(10)} == {sent}, 20)
    text = httpx.get(f"{server.url}/metrics").text
    assert "vllm:request_success_total" in text, "vLLM's own are still there"
    assert sum(c.finished for c in engine.snapshot().counters if c.tenant == "both") == sent

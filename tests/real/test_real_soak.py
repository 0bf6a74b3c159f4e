"""Does half a minute of random traffic and random decisions leave a real vLLM whole?"""

import psutil
import pytest

from evals.own_server import OwnServer
from evals.soak.run import SoakOptions, soak_on
from tests.real.conftest import MODEL, RealServer

pytestmark = pytest.mark.real_vllm


def server_pid(url: str) -> int:
    """The API server's process: the oldest one that was told this port."""
    port = url.rsplit(":", 1)[1]
    named = [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"vllm.entrypoints.openai.api_server", port} <= set(process.info["cmdline"] or ())
    ]
    return int(min(named, key=lambda process: process.create_time()).pid)


def test_a_short_soak_leaves_balanced_books_and_a_clean_log(server: RealServer) -> None:
    own = OwnServer(server.url, MODEL, server.token_file, server.log, server_pid(server.url))
    ticks: list[float] = []
    report = soak_on(
        own,
        SoakOptions(minutes=0.4, rate_rps=2.5, seed=1),
        on_tick=lambda elapsed_s, _clients, _steering: ticks.append(elapsed_s),
    )
    assert report.problems == []
    books = report.books
    assert books.sent == books.finished + books.aborted + books.ends["refused"] + books.unseen
    assert books.finished > 0
    assert books.ends["refused"] > 0
    assert sum(counts.get("accepted", 0) for counts in report.answers.values()) > 0
    assert report.memory.end > 0
    assert ticks

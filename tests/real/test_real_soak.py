"""Does half a minute of random traffic and random decisions leave a real vLLM whole?"""

import pytest

from evals.checks.soak.run import SoakOptions, soak_on
from evals.live.own_server import OwnServer
from tests.real.conftest import MODEL, RealServer

pytestmark = pytest.mark.real_vllm


def test_a_short_soak_leaves_balanced_books_and_a_clean_log(server: RealServer) -> None:
    own = OwnServer(server.url, MODEL, server.token_file, server.log, server.pid)
    ticks: list[float] = []
    report = soak_on(
        own,
        SoakOptions(minutes=0.4, rate_rps=2.5, seed=1),
        on_tick=lambda elapsed_s, _clients, _steering: ticks.append(elapsed_s),
    )
    assert report.problems == []
    books = report.books
    assert books.asked == books.finished + books.aborted + books.ends["refused"] + books.unseen
    assert books.finished > 0
    assert books.ends["refused"] > 0
    assert sum(counts.get("accepted", 0) for counts in report.answers.values()) > 0
    assert report.memory.end > 0
    assert ticks

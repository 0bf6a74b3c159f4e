"""Does half a minute of random traffic and random decisions leave a real vLLM whole?"""

import pytest

from evals.checks.soak.run import SoakOptions, soak_on
from evals.live.own_server import OwnServer
from evals.progress import CaseProgress
from tests.real.conftest import MODEL, RealServer

pytestmark = pytest.mark.real_vllm


def test_a_short_soak_leaves_balanced_books_and_a_clean_log(server: RealServer) -> None:
    own = OwnServer(server.url, MODEL, server.token_file, server.log, server.pid)
    with CaseProgress() as progress:
        report = soak_on(own, SoakOptions(minutes=0.4, rate_rps=2.5, seed=1), progress)
    assert report.problems == []
    books = report.books
    assert books.asked == books.finished + books.aborted + books.ends["refused"] + books.unseen
    assert books.finished > 0
    assert books.ends["refused"] > 0
    assert sum(counts.get("accepted", 0) for counts in report.answers.values()) > 0
    assert report.memory_mib.end > 0

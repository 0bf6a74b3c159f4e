"""Does the demo's bookkeeping notice a request that was lost or counted twice?"""

from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from evals.demo import books
from evals.demo.books import Books, check_books, read_totals
from evals.metrics import CaseRun
from serving.contracts import JournalPage
from tests.evals.samples import outcome
from tests.fakes import FakeEngine

METRICS = """# TYPE hmas_requests_received_total counter
hmas_requests_received_total{slo_class="interactive",tenant="a"} 3.0
hmas_requests_received_total{slo_class="batch",tenant="a"} 1.0
# TYPE hmas_requests_finished_total counter
hmas_requests_finished_total{slo_class="interactive",tenant="a"} 2.0
# TYPE hmas_requests_aborted_total counter
hmas_requests_aborted_total{slo_class="interactive",tenant="a"} 1.0
# TYPE hmas_requests_met_total counter
hmas_requests_met_total{slo_class="interactive",tenant="a"} 1.0
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running 4.0
"""


@pytest.fixture
def metrics_url(monkeypatch):
    monkeypatch.setattr(books, "_SETTLE_S", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_totals_are_summed_over_slo_classes(metrics_url):
    assert read_totals(metrics_url) == {
        "received": Counter(a=4), "finished": Counter(a=2), "aborted": Counter(a=1)
    }  # fmt: skip


def balanced_books() -> Books:
    counted = {"received": Counter(a=2), "finished": Counter(a=1), "aborted": Counter(a=1)}
    return Books(Counter(a=2), counted, Counter(hmas=2), Counter({(2, "slide"): 2}))


def test_balanced_books_say_so():
    assert balanced_books().balanced
    assert "books balanced: 2 sent" in balanced_books().text()


@pytest.mark.parametrize("counter", ["received", "finished", "aborted"])
@pytest.mark.parametrize("error", [-1, 1])
def test_a_miscounted_request_unbalances_the_books(counter, error):
    good = balanced_books()
    counted = {name: Counter(tenants) for name, tenants in good.counted.items()}
    counted[counter]["a"] += error
    assert not replace(good, counted=counted).balanced


def test_a_request_missing_from_the_journal_unbalances_the_books():
    assert not replace(balanced_books(), journalled=Counter(hmas=1)).balanced


def test_only_replayed_requests_are_looked_up_and_only_once(metrics_url):
    ids = ["cmpl-s-1.5-hmas-r0-0-ab", "cmpl-s-1.5-vllm-fcfs-r0-0-ab", "cmpl-capacity-c1-0-ab"]
    seen = tuple(
        replace(outcome(i), request_id=name, policy="slide", epoch=2)
        for i, name in enumerate(ids)
    )

    class Journalling(FakeEngine):
        def journal(self, cursor, limit=5000):
            return JournalPage(cursor=3, lost=0, outcomes=seen if cursor == 0 else ())

    runs = [CaseRun("s", 1.5, arm, [outcome(0)], ()) for arm in ("vllm-fcfs", "hmas")]
    before: books.Totals = {name: Counter() for name in ("received", "finished", "aborted")}
    found = check_books(Journalling(), metrics_url, before, runs)
    assert found.journalled == Counter({"hmas": 1, "vllm-fcfs": 1})
    assert found.epochs == Counter({(2, "slide"): 1})

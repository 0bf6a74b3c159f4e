"""Are an engine's totals read alike from its counters and from its /metrics?"""

from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from evals.live.server import engine_totals, exported_totals
from serving.contracts import TenantCounters

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
TOTALS = {"received": Counter(a=4), "finished": Counter(a=2), "aborted": Counter(a=1)}


@pytest.fixture
def metrics_url():
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


def test_what_metrics_say_is_summed_over_slo_classes(metrics_url):
    assert exported_totals(metrics_url, settle_s=0.0) == TOTALS


def test_counters_are_summed_over_slo_classes():
    rows = [
        TenantCounters("a", "interactive", received=3, finished=2, aborted=1, met=1),
        TenantCounters("a", "batch", received=1),
    ]
    assert engine_totals(rows) == TOTALS

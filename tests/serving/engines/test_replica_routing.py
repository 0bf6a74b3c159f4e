"""Does each request go where vLLM's own data-parallel front end would send it?

vLLM's client is asked for each request, with what its engines have in flight at that moment, before
the coordinator's first report (0.1 s). What reports change is in tests/evals/test_plan.py.
"""

import random
from collections import Counter
from types import SimpleNamespace

import pytest
from vllm.v1.engine.core_client import DPLBAsyncMPClient

from serving.contracts import CostCoefficients, TraceRequest
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile
from serving.engines.replicas import serve_on_replicas

MACHINE = EngineProfile("quick", "made up", CostCoefficients(2e-3, 1e-5, 1e-5), 4, 64, 500, 16, 512)


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_vllms_client_would_choose_the_same_replicas(replicas):
    draw = random.Random(replicas)
    moments = sorted(draw.uniform(0.0, 0.099) for _ in range(120))
    requests = [
        TraceRequest(at_s, draw.randint(1, 90), draw.randint(1, 12), max_tokens=50)
        for at_s in moments
    ]
    run = serve_on_replicas(MACHINE, columns(requests, MACHINE), replicas)
    client = DPLBAsyncMPClient.__new__(DPLBAsyncMPClient)  # without processes and sockets
    client.core_engines = [bytes([k]) for k in range(replicas)]
    client.lb_engines = [[0, 0, 0.0] for _ in range(replicas)]
    client.client_count, client.eng_start_index, client.reqs_in_flight = 1, 0, {}
    chosen = list[int]()
    for i, at_s in enumerate(moments):
        client.engine_inflight = Counter(
            client.core_engines[run.replica_of[k]]
            for k in range(i)
            if run.served.finished_s[k] >= at_s
        )
        request = SimpleNamespace(request_id=f"r{i}", data_parallel_rank=None, pooling_params=None)
        chosen.append(client.get_core_engine_for_request(request)[0])
    assert run.replica_of.tolist() == chosen
    assert (run.served.finished_s < 0.099).sum() > 10  # some had left by then

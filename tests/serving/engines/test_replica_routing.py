"""Does each request go where vLLM, Ray, or our own rule would send it?

vLLM's client is asked for each request, with what its engines have in flight at that moment, before
the coordinator's first report (0.1 s). What reports change is in tests/evals/test_plan.py. Ray's
routers are written down here as their classes in Ray 2.60 have them.
"""

import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from vllm.v1.engine.core_client import DPLBAsyncMPClient

from serving.contracts import CostCoefficients, TraceRequest
from serving.engines.offered import columns
from serving.engines.profile import EngineProfile
from serving.engines.replicas import Routing, serve_on_replicas

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


def in_flight(run, workload, row, replicas):
    """Of each replica, when a request comes; those that end at that moment are still counted."""
    at_s, before = workload.arrival_s[row], np.arange(row)
    inside = before[run.served.finished_s[:row] >= at_s]
    return np.bincount(run.replica_of[inside], minlength=replicas)


def test_power_of_two_takes_the_less_busy_of_two_that_chance_has_drawn():
    draw = random.Random(5)
    requests = [
        TraceRequest(at_s, 40, draw.randint(1, 30), max_tokens=50)
        for at_s in sorted(draw.uniform(0.0, 1.0) for _ in range(200))
    ]
    workload = columns(requests, MACHINE)
    routing = Routing("power-of-two", seed=3)
    run = serve_on_replicas(MACHINE, workload, 3, routing=routing)
    again = serve_on_replicas(MACHINE, workload, 3, routing=routing)
    assert np.array_equal(run.replica_of, again.replica_of)
    least = 0
    for row in range(len(workload)):
        flights = in_flight(run, workload, row, 3)
        # Never the busiest by itself: whoever it was drawn with was less so.
        busier = flights[run.replica_of[row]] > np.delete(flights, run.replica_of[row])
        assert not busier.all()
        least += flights[run.replica_of[row]] == flights.min()
    assert least > len(workload) / 2


CACHING = replace(MACHINE, kv_blocks=400, prefix_caching=True, max_active_requests=8)


def talks(count, turns, seed):
    """Sessions whose prompts begin as the one before did, and grow."""
    draw, requests = random.Random(seed), []
    for session in range(count):
        at_s = draw.uniform(0.0, 5.0)
        for turn in range(1, turns + 1):
            prefix = tuple(range(100 * session, 100 * session + turn))
            requests.append(
                TraceRequest(at_s, 16 * turn + 8, draw.randint(1, 9), max_tokens=20, prefix=prefix)
            )
            at_s += draw.uniform(0.2, 1.0)
    return sorted(requests, key=lambda one: one.arrival_s)


@pytest.mark.parametrize("imbalance", [np.inf, 3.0])
def test_prefix_follows_the_longest_match_and_else_the_least_text(imbalance):
    requests = talks(40, 5, seed=2)
    workload = columns(requests, CACHING)
    routing = Routing("prefix", imbalance=imbalance)
    run = serve_on_replicas(CACHING, workload, 3, routing=routing)
    trees: list[set[tuple[int, ...]]] = [set() for _ in range(3)]
    text, matches = [0] * 3, 0
    for row, one in enumerate(requests):
        flights, chosen = in_flight(run, workload, row, 3), run.replica_of[row]
        blocks = [one.prefix[: i + 1] for i in range(min(len(one.prefix), one.prompt_tokens // 16))]
        matched = [sum(each in tree for each in blocks) for tree in trees]
        if flights.max() - flights.min() <= imbalance:
            wanted, best = matched, max(matched)
            if 16 * best < 0.1 * one.prompt_tokens:
                wanted, best = [-each for each in text], -min(text)
            else:
                matches += 1
            among = [k for k in range(3) if wanted[k] == best]
            assert chosen in among
            assert flights[chosen] == min(flights[k] for k in among)
        text[chosen] += sum(each not in trees[chosen] for each in blocks)
        text[chosen] += max(0, one.prompt_tokens // 16 - len(blocks))
        trees[chosen].update(blocks)
    assert matches > 100


def test_the_deadline_router_asks_the_hook():
    with pytest.raises(ValueError, match="router deadline asks the hook, and stock vLLM has none"):
        serve_on_replicas(MACHINE, columns([TraceRequest(0.0, 9, 9)], MACHINE), 2,
                          routing=Routing("deadline"))  # fmt: skip

"""Is capacity the rate that lasts, where that is known?"""

from dataclasses import replace

import pytest

from evals.requests.sending import Block, Stream, Stretch
from evals.requests.trace import WorkloadError
from evals.sim.suite_run import simulated_capacity_rps
from evals.suite.shapes import Lognormal
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from tests.evals.small_cases import MACHINE

SETTINGS = EngineSettings()
# Answers longer than a burst of so few requests lasts.
SENT = Stretch(0.0, 4000.0, 4000.0, "Gamma", 1 / 16, Lognormal(50, 150, 300),
               Lognormal(60, 200, 400))  # fmt: skip
MIXED = Stream(TraceRequest(0.0, 1, 1, "t", "batch"), (SENT,)).send(1.0, Block(4000.0, 1))


def test_of_equal_requests_one_by_one_it_is_one_over_their_time():
    alone = replace(MACHINE, max_active_requests=1)
    cost, prompt, answer = alone.cost, 100, 11
    prefill_s = cost.base_s + prompt * cost.per_prefill_token_s
    decodes_s = (answer - 1) * (cost.base_s + cost.per_decode_s)
    rate_rps = simulated_capacity_rps(alone, SETTINGS, [TraceRequest(0.0, prompt, answer)] * 20)
    assert rate_rps == pytest.approx(1 / (prefill_s + decodes_s), rel=1e-3)


def test_few_requests_and_many_of_the_same_mix_say_the_same():
    many = MIXED.requests()
    all_s = simulated_capacity_rps(MACHINE, SETTINGS, many)
    assert simulated_capacity_rps(MACHINE, SETTINGS, many[:400]) == pytest.approx(all_s, rel=0.1)


def test_bursts_and_the_rate_of_the_trace_have_no_part_in_it():
    requests = MIXED.requests()[:400]
    slow = [replace(one, arrival_s=100 * one.arrival_s) for one in requests]
    assert simulated_capacity_rps(MACHINE, SETTINGS, slow) == simulated_capacity_rps(
        MACHINE, SETTINGS, requests
    )


def test_copies_share_no_prompts_but_what_a_copy_shares_itself():
    profile = replace(MACHINE, prefix_caching=True)
    alone = [TraceRequest(0.0, 1024, 20 + i, prefix=(i, 100 + i)) for i in range(60)]
    shared = [replace(one, prefix=(0, 1)) for one in alone]
    unique = [replace(one, prefix=()) for one in alone]
    rates = [simulated_capacity_rps(profile, SETTINGS, each) for each in (alone, unique, shared)]
    assert rates[0] == pytest.approx(rates[1], rel=0.01)
    assert rates[2] > 1.5 * rates[0]


def test_too_few_requests_have_no_rate():
    with pytest.raises(WorkloadError, match="too few"):
        simulated_capacity_rps(MACHINE, SETTINGS, [TraceRequest(0.0, 10, 10)] * 5)

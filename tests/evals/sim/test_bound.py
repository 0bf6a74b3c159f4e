"""Is the bound above every arm, monotone, and right where it can be worked out by hand?"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.arms import run_case
from evals.arms.case import SimulatedCase
from evals.arms.sglang.engine import EmulatedSGLang
from evals.machines.profile_file import load_profile
from evals.requests.sending import Block, Stream, Stretch, sent
from evals.result.metrics import summarise
from evals.sim.bound import upper_bound
from evals.sim.bound.windows import Windows
from evals.sim.bound.work import least_work
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.shapes import Lognormal, Span
from serving.contracts import SLO, CostCoefficients, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile

GPU = load_profile("a100_llama_8b")
MACHINES = {
    "gpu": GPU,
    "few slots": replace(GPU, max_active_requests=8),
    "little cache": replace(GPU, kv_blocks=1100),
    "long prompts": replace(GPU, cost=replace(GPU.cost, per_square_s=5e-9), token_budget=512),
}
END_S = 22.0
CLASSES = ("interactive", "conversational", "document")
# One step of 10 ms and 1 ms per token: easy to work out.
PLAIN = EngineProfile(
    "plain", "made up", CostCoefficients(0.01, 0.001, 0.001), max_active_requests=8,
    token_budget=1000, kv_blocks=1000,
)  # fmt: skip


def span_s(requests: tuple[TraceRequest, ...]) -> float:
    return requests[-1].arrival_s - requests[0].arrival_s


def workload(seed: int, rate_rps: float, count: int = 30) -> tuple[TraceRequest, ...]:
    each = Stretch(0.0, 99.0, count, "Gamma", 1.0, Lognormal(1020, 2734, 14_050),
                   Lognormal(129, 424, 1000))  # fmt: skip
    senders = [Stream(TraceRequest(0.0, 1, 1, name, name), (each,)) for name in CLASSES]
    drawn = sent(senders, 1.0, Block(99.0, seed)).requests()[:count]
    first_s, slower = drawn[0].arrival_s, count / span_s(drawn) / rate_rps
    return tuple(replace(one, arrival_s=(one.arrival_s - first_s) * slower) for one in drawn)


def promised(**classes: SLO) -> EngineSettings:
    return EngineSettings(contract=with_classes(classes))


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("seed", "rate_rps"), [(2, 25.0), (3, 60.0)])
def test_no_arm_meets_more(machine, seed, rate_rps):
    profile, requests = MACHINES[machine], workload(seed, rate_rps)
    bound = upper_bound(requests, profile, EngineSettings(), END_S)
    for name in ("vllm-fcfs", "fixed-edf", "fixed-slide+rules", "fixed-srpt+rules"):
        case = SimulatedCase(
            "s", 1.0, parse_arm(name), requests, profile, EngineSettings(), Span(END_S),
            ControllerOptions(),
        )  # fmt: skip
        result = summarise(run_case(case), span_s(requests))
        assert result["goodput_rps"] * span_s(requests) <= bound.met + 1e-6, name


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 50), rate_rps=st.sampled_from([15.0, 40.0, 120.0]),
    left_out=st.integers(1, 28),
)  # fmt: skip
def test_more_requests_never_lower_it(seed, rate_rps, left_out):
    requests = workload(seed, rate_rps)
    fewer = requests[:left_out] + requests[left_out + 1 :]
    few, many = (upper_bound(r, GPU, EngineSettings(), END_S).met for r in (fewer, requests))
    assert many >= few - 1e-4


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 50), rate_rps=st.sampled_from([15.0, 40.0, 120.0]),
    factor=st.floats(1.0, 3.0),
)  # fmt: skip
def test_looser_targets_never_lower_it(seed, rate_rps, factor):
    requests = workload(seed, rate_rps)
    tight, loose = (
        upper_bound(requests, GPU, EngineSettings(slo_scale=scale), END_S).met
        for scale in (0.5, 0.5 * factor)
    )
    assert loose >= tight - 1e-4


@pytest.mark.parametrize("chunk", [512, 8192])
@pytest.mark.parametrize("machine", ["gpu", "little cache"])
def test_emulated_sglang_meets_no_more(machine, chunk):
    profile, requests = MACHINES[machine], workload(3, 60.0)
    engine = EmulatedSGLang(profile, EngineSettings(), chunked_prefill_size=chunk)
    outcomes = engine.run(requests, until_s=END_S)
    widest = replace(profile, token_budget=max(chunk, profile.token_budget))
    bound = upper_bound(requests, widest, EngineSettings(), END_S)
    assert sum(outcome.met for outcome in outcomes) <= bound.met + 1e-9


def test_a_coarse_grid_invents_no_constraint():
    """What one schedule met lies inside the windows of every grid."""
    requests = workload(3, 60.0)
    case = SimulatedCase(
        "s", 1.0, parse_arm("fixed-srpt+rules"), requests, GPU, EngineSettings(), Span(END_S),
        ControllerOptions(),
    )  # fmt: skip
    met = [outcome.met for outcome in run_case(case).outcomes]
    work = least_work(requests, GPU, EngineSettings(), END_S)
    assert len(work.release_s) == len(requests)
    assert sum(met) > 5
    for points in (3, 10, 37, 1000):
        assert Windows(work, GPU, points).overfull(np.array(met, float), 10) == []


@pytest.mark.parametrize(
    ("binding", "machine", "steps_each"),
    [
        ("compute", replace(PLAIN, max_active_requests=1000), 99 / 1000),
        ("slots", PLAIN, 1 / 8),
        ("kv", replace(PLAIN, kv_blocks=10), 99 / 160),
    ],
)
def test_prompts_due_together_share_the_time_there_is(binding, machine, steps_each):
    # 99 ms of prompt each, and its share of a step of 10 ms.
    requests = [TraceRequest(i * 1e-9, 99, 1, slo_class="c") for i in range(30)]
    bound = upper_bound(requests, machine, promised(c=SLO(ttft_ms=250)), 10.0)
    assert bound.met == pytest.approx(0.250 / (0.099 + 0.01 * steps_each), rel=1e-4)
    assert bound.binding == binding


def test_a_single_answer_sets_the_pace():
    # 41 tokens in 0.5 s need 41 steps: 410 ms are fixed cost, 40 ms its decodes. Left for
    # prompts: 50 ms, less than the two of 30 ms; and each of the three can be met alone.
    requests = [
        TraceRequest(0.0, 1, 41, slo_class="stream"),
        TraceRequest(0.001, 30, 1, slo_class="once"),
        TraceRequest(0.002, 30, 1, slo_class="once"),
    ]
    slos = promised(stream=SLO(e2e_ms=500), once=SLO(e2e_ms=498))
    bound = upper_bound(requests, PLAIN, slos, 10.0)
    assert bound.possible == 3
    assert bound.met < 3
    assert bound.binding == "pace"


@pytest.mark.parametrize(
    ("slo", "prompt", "output", "met"),
    [
        (SLO(ttft_ms=110.5), 100, 1, 1),
        (SLO(ttft_ms=109.5), 100, 1, 0),
        (SLO(tpot_ms=11.5), 100, 5, 1),
        (SLO(tpot_ms=10.5), 100, 5, 0),
        (SLO(e2e_ms=110.5 + 44), 100, 5, 1),
        (SLO(e2e_ms=109.5 + 44), 100, 5, 0),
        (SLO(), 16_000, 10, 0),  # more than the cache holds
        (SLO(), 20_000, 10, 0),  # more than the model's context: rejected
    ],
)
def test_alone_on_an_idle_engine_it_is_exact(slo, prompt, output, met):
    requests = [TraceRequest(at, prompt, output, slo_class="c") for at in (0.0, 100.0)]
    assert upper_bound(requests, PLAIN, promised(c=slo), 100.0).met == pytest.approx(2 * met)


def test_all_that_is_possible_alone_is_limited_by_the_load():
    requests = [TraceRequest(at, 10, 2) for at in (0.0, 4.0)]
    bound = upper_bound(requests, PLAIN, EngineSettings(), 100.0)
    assert (bound.met, bound.binding) == (2.0, "load")
    alone = upper_bound(requests[:1], PLAIN, EngineSettings(), 100.0)
    assert (alone.met, alone.binding) == (1.0, "load")

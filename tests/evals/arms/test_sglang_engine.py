"""Is a workload served whole by the SGLang emulation, on time and within the KV cache?"""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.arms.sglang.engine import EmulatedSGLang
from evals.arms.sglang.scheduler import Step
from serving.contracts import Contract, CostCoefficients, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import gap_percentile
from serving.engines.profile import EngineProfile
from serving.perception.cost_model import StepShape
from tests.evals.samples import offered

SETTINGS = EngineSettings()
STEP = CostCoefficients(1.0, 0.0, 0.0)  # every step takes a second
MACHINE = EngineProfile(
    "test", "made up", STEP, max_active_requests=8, token_budget=64, kv_blocks=10,
    block_size=20, max_model_len=150,
)  # fmt: skip
BIG = replace(MACHINE, kv_blocks=1000)


def test_times_are_those_of_a_client_and_a_prefill_stalls_decodes():
    engine = EmulatedSGLang(BIG, SETTINGS)
    requests = (TraceRequest(0.0, 10, 3), TraceRequest(0.5, 10, 2))
    first, second = engine.run(requests)
    # 0-1 prefill of r0, 1-2 prefill of r1, 2-3 both decode, 3-4 r0 alone.
    assert (first.queue_s, first.ttft_s, first.tpot_s, first.finished_s) == (0.0, 1.0, 1.5, 4.0)
    assert (second.queue_s, second.ttft_s, second.finished_s) == (0.5, 1.5, 3.0)
    assert [o.request_id for o in (first, second)] == ["r0", "r1"]
    assert [o.finish for o in (first, second)] == ["stop", "stop"]
    assert [o.output_tokens for o in (first, second)] == [3, 2]
    assert engine.now() == 4.0


def test_gaps_between_tokens_are_those_of_the_steps_and_judged():
    contract = Contract(classes={"batch": ClassTerms(itl_ms=1500)})
    engine = EmulatedSGLang(BIG, EngineSettings(contract=contract))
    engine.gaps_of_s = 0.2, 1.0
    first, second = engine.run((TraceRequest(0.0, 10, 3), TraceRequest(0.5, 10, 2)))
    assert (first.late_gaps, first.miss) == (1, "itl"), "gaps of 2 s and 1 s"
    assert (second.late_gaps, second.met) == (0, True)
    assert engine.gap_counts.sum() == 1, "that of the second one"
    assert gap_percentile(engine.gap_counts, 99) == pytest.approx(1.0, rel=0.005)


def test_steps_have_the_shape_that_the_cost_model_prices():
    steps: list[Step] = []
    engine = EmulatedSGLang(BIG, SETTINGS, chunked_prefill_size=32)
    outcomes = engine.run(offered(0.0, 0.0, prompt=40, output=3), on_step=steps.append)
    assert [outcome.queue_s for outcome in outcomes] == [0.0, 1.0]  # to the first chunk
    assert [step.shape for step in steps] == [
        StepShape(prefill_tokens=32),
        StepShape(prefill_tokens=32, prefill_square=8 * 32),
        StepShape(prefill_tokens=16, prefill_square=16 * 24),
        StepShape(decodes=2, decode_context=80),
        StepShape(decodes=2, decode_context=82),
    ]


def test_time_is_the_cost_models():
    engine = EmulatedSGLang(
        replace(BIG, cost=CostCoefficients(1.0, 0.1, 0.01, 0.001, 0.5)), SETTINGS
    )
    (outcome,) = engine.run(offered(0.0, prompt=10, output=2))
    assert outcome.ttft_s == pytest.approx(1.0 + 10 * 0.1)
    assert outcome.tpot_s == pytest.approx(1.0 + 0.01 + 10 * 0.001)


def test_its_own_kernels_are_charged_where_the_profile_has_them():
    own = replace(BIG, other_costs={"sglang": CostCoefficients(2.0, 0.0, 0.0)})
    (outcome,) = EmulatedSGLang(own, SETTINGS).run(offered(0.0, prompt=10, output=2))
    assert (outcome.ttft_s, outcome.tpot_s) == (2.0, 2.0)


def test_the_capacity_is_blocks_times_block_size():
    engine = EmulatedSGLang(MACHINE, SETTINGS)
    assert engine.scheduler.kv_tokens == 200


def test_a_retraction_is_a_preemption_and_its_tokens_are_recomputed():
    engine = EmulatedSGLang(MACHINE, SETTINGS)
    retracted: list[tuple[int, int]] = []
    outcomes = engine.run(
        offered(*(3.0 * i for i in range(8)), prompt=10, output=60),
        on_step=lambda step: retracted.extend(
            (each.index, each.prompt_tokens + each.output_tokens - 1) for each in step.retracted
        ),
    )
    assert retracted
    for outcome in outcomes:
        assert outcome.preemptions == [index for index, _ in retracted].count(outcome.seq)
        assert outcome.output_tokens == 60
    assert engine.recomputed_tokens == sum(tokens for _, tokens in retracted)


def test_a_prompt_that_sglang_would_not_take_is_rejected():
    # The longest request is 149 tokens, a prompt must be 5 shorter.
    fits, too_long = EmulatedSGLang(BIG, SETTINGS).run(
        (TraceRequest(0.0, 143, 1), TraceRequest(0.0, 144, 1))
    )
    assert (fits.finish, too_long.finish) == ("stop", "rejected")
    assert too_long.miss == "not_served"


def test_an_answer_ends_where_the_context_does():
    (outcome,) = EmulatedSGLang(BIG, SETTINGS).run((TraceRequest(0.0, 100, 60),))
    assert (outcome.finish, outcome.output_tokens) == ("length", 149 - 100 - 1)


def test_what_is_inside_or_to_come_at_the_end_is_unfinished():
    requests = (*offered(0.0, 0.0, prompt=10, output=30), *offered(100.0))
    outcomes = EmulatedSGLang(replace(BIG, max_active_requests=1), SETTINGS).run(
        requests, until_s=4.5
    )
    assert [o.finish for o in outcomes] == ["unfinished"] * 3
    assert [o.output_tokens for o in outcomes] == [5, 0, 0]
    assert outcomes[0].tpot_s == 1.0
    assert not any(o.met for o in outcomes)


def test_a_token_is_dated_by_its_own_step():
    engine = EmulatedSGLang(BIG, SETTINGS, chunked_prefill_size=30)
    requests = (TraceRequest(0.0, 10, 30), TraceRequest(2.5, 90, 1))
    outcome = engine.run(requests, until_s=5.5)[0]  # decodes to 3, then prefill steps
    assert (engine.now(), outcome.output_tokens, outcome.tpot_s) == (6.0, 3, 1.0)


def test_sizes_that_cannot_work_are_named():
    with pytest.raises(ValueError, match="chunked_prefill_size = 0"):
        EmulatedSGLang(BIG, SETTINGS, chunked_prefill_size=0)
    with pytest.raises(ValueError, match="max_model_len = 6: no request fits"):
        EmulatedSGLang(replace(BIG, max_model_len=6), SETTINGS)


@given(
    st.lists(
        st.builds(
            TraceRequest, st.integers(0, 100).map(float), st.integers(1, 160), st.integers(1, 100),
            slo_class=st.sampled_from(["interactive", "batch"]),
        ),
        max_size=30,
    ),
    st.integers(1, 8),
    st.sampled_from([5, 40, 8192]),
)  # fmt: skip
def test_nothing_is_lost_and_the_kv_cache_holds(requests, most, chunk):
    requests.sort(key=lambda request: request.arrival_s)
    engine = EmulatedSGLang(
        replace(MACHINE, max_active_requests=most), SETTINGS, chunked_prefill_size=chunk
    )
    scheduler = engine.scheduler

    def check(step):
        assert scheduler.free_tokens >= 0
        assert len(scheduler.running) <= most
        assert sum(prefill.tokens for prefill in step.prefills) <= chunk

    outcomes = engine.run(requests, on_step=check)
    assert [outcome.seq for outcome in outcomes] == list(range(len(requests)))
    for asked, got in zip(requests, outcomes, strict=True):
        longest = 149 - asked.prompt_tokens - 1
        if asked.prompt_tokens >= 144:
            assert got.finish == "rejected"
        else:
            assert got.output_tokens == min(asked.output_tokens, longest)
            assert got.finish == ("stop" if asked.output_tokens <= longest else "length")
            assert got.ttft_s is not None
            assert got.ttft_s >= 1.0
            assert got.finished_s - got.arrival_s >= got.output_tokens
    assert scheduler.free_tokens == scheduler.kv_tokens
    assert sum(outcome.preemptions for outcome in outcomes) == 0 or engine.recomputed_tokens > 0

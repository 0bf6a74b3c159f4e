"""Do the online models learn what is true, and can nothing a client sends upset them?"""

import math
import random
from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import SLO, SLO_CLASSES, Contract, CostCoefficients, with_classes
from serving.contracts.settings import EngineSettings
from serving.core.lengths import MAX_HISTOGRAMS, length_bin
from serving.perception.attributes import deadline_s, slo_of, tenant_of
from serving.perception.cost_model import DEFAULT_COST, CostModel, StepShape, step_shape
from serving.perception.length_model import LengthModel
from tests.serving.samples import LightRequest, view

TRUE = CostCoefficients(0.008, 5e-5, 2e-4, 6e-8, 2e-9)


def steps(count: int, rng: random.Random) -> list[StepShape]:
    """Prefill-only, decode-only and mixed steps of a busy engine."""
    return [
        StepShape(
            prefill_tokens=prefill,
            decodes=decodes,
            decode_context=decodes * rng.randrange(100, 2000),
            prefill_square=prefill * rng.randrange(0, 4000),
        )
        for prefill, decodes in (
            (rng.choice([0, rng.randrange(1, 2048)]), rng.choice([0, rng.randrange(1, 128)]))
            for _ in range(count)
        )
    ]


def taught(noise: float = 0.05, stall_every: int = 0) -> CostModel:
    rng = random.Random(7)
    model = CostModel()
    for i, shape in enumerate(steps(1500, rng)):
        measured_s = shape.seconds(TRUE) * rng.gauss(1.0, noise)
        if stall_every and i > 200 and i % stall_every == 0:
            measured_s = 3.0
        model.learn(shape, measured_s)
    return model


def test_the_cost_model_finds_the_true_coefficients():
    model = taught()
    for name, near in (("base_s", 0.1), ("per_prefill_token_s", 0.05), ("per_decode_s", 0.15),
                       ("per_context_token_s", 0.15), ("per_square_s", 0.15)):  # fmt: skip
        assert getattr(model.coefficients, name) == pytest.approx(getattr(TRUE, name), rel=near)
    for shape in steps(100, random.Random(8)):
        assert model.predict(shape) == pytest.approx(shape.seconds(TRUE), rel=0.05)
    assert model.margin == pytest.approx(1.2816 * 0.05, abs=0.02)  # q90 of the noise
    assert abs(model.bias) < 0.02
    assert model.samples == 1500


def test_stalls_are_left_out():
    clean, stalled = taught(0.02), taught(0.02, stall_every=20)
    assert stalled.samples < clean.samples
    shape = StepShape(500, 20, 10_000, 100_000)
    assert stalled.predict(shape) == pytest.approx(shape.seconds(TRUE), rel=0.03)


@settings(deadline=None, max_examples=30)
@given(st.lists(
    st.tuples(
        st.integers(0, 8192), st.integers(0, 512), st.integers(0, 10**6), st.integers(0, 10**7),
        st.floats(-1, 30),
    ),
    min_size=40, max_size=70,
))  # fmt: skip
def test_coefficients_and_margin_stay_sane_whatever_is_measured(samples):
    model = CostModel()
    for *features, measured_s in samples:
        model.learn(StepShape(*features), measured_s)
    assert all(value >= 0 and math.isfinite(value) for value in astuple(model.coefficients))
    assert 0.0 <= model.margin <= 0.5
    assert math.isfinite(model.bias)


def test_without_samples_the_prior_speaks():
    shape = StepShape(100, 3, 500)
    assert CostModel().predict(shape) == shape.seconds(DEFAULT_COST)
    assert CostModel(TRUE).predict(shape) == shape.seconds(TRUE)


class _Computed(LightRequest):
    def __init__(self, prompt_tokens: int, computed_tokens: int) -> None:
        super().__init__(view(prompt_tokens=prompt_tokens))
        self.num_prompt_tokens, self.num_computed_tokens = prompt_tokens, computed_tokens


def test_the_shape_of_a_step_tells_chunks_from_decodes():
    requests = {
        "chunk": _Computed(900, 500),  # 300 tokens after 200
        "last token of a prompt": _Computed(400, 400),  # 1 token after 399: prefill
        "decode": _Computed(100, 151),  # 1 token after 150
        "resumed": _Computed(50, 80),  # recomputes 80 after 0
    }
    scheduled = {"chunk": 300, "last token of a prompt": 1, "decode": 1, "resumed": 80}
    assert step_shape(scheduled, requests) == StepShape(381, 1, 150, 300 * 200 + 399)


GROUP = LengthModel.group("acme", 500, 1024)


def test_the_mean_residual_life_of_known_lengths():
    """Half the answers have 20 tokens, half 200: at the start 110 are to come, after 40 160."""
    model = LengthModel()
    for i in range(400):
        model.learn(GROUP, 20 if i % 2 else 200)
    assert model.remaining(GROUP, 0, 1024) == pytest.approx(110, rel=0.15)
    assert model.remaining(GROUP, 40, 1024) == pytest.approx(160, rel=0.15)
    assert model.remaining(GROUP, 40, 50) == 10, "never more than max_tokens leaves"
    assert model.remaining(GROUP, 5000, 20_000) == 5000, "longer than all seen: as much again"
    assert model.remaining(GROUP, 1024, 1024) == 1


def test_memoryless_lengths_leave_the_mean_to_come_and_are_covered():
    rng, model = random.Random(3), LengthModel()
    for _ in range(2000):
        model.learn(GROUP, 1 + int(rng.expovariate(1 / 150)))
    for generated in (0, 50, 150):
        assert model.remaining(GROUP, generated, 10_000) == pytest.approx(150, rel=0.25)
    q90 = -150 * math.log(0.1)
    assert q90 / 1.25 <= model.quantile(GROUP, 0.9) <= q90 * 1.25, "one bin up or down"
    assert model.coverage == pytest.approx(0.9, abs=0.08)


def test_coverage_falls_when_answers_grow_longer():
    model = LengthModel()
    for _ in range(100):
        model.learn(GROUP, 30)
    assert model.coverage is not None
    before = model.coverage
    for _ in range(8):
        model.learn(GROUP, 3000)
    assert model.coverage < before - 0.1


def test_little_seen_means_the_default_then_everybodys_lengths():
    model = LengthModel()
    assert model.coverage is None
    assert model.quantile(GROUP, 0.9) == math.inf
    assert model.remaining(GROUP, 0, 1024) == 128
    assert model.remaining(GROUP, 0, 32) == 32
    for _ in range(20):
        model.learn(GROUP, 500)
    other = LengthModel.group("someone else", 500, 1024)
    assert model.remaining(other, 0, 1024) == pytest.approx(500, rel=0.2)
    for _ in range(200):
        model.learn(LengthModel.group("a third one", 10, 10), 5)
    assert model.quantile(GROUP, 0.5) > 100, "its own"
    assert model.quantile(other, 0.5) < 10, "everybody's, not the first tenant's"


def test_the_number_of_histograms_is_bounded():
    model = LengthModel()
    for i in range(3 * MAX_HISTOGRAMS):
        model.learn(LengthModel.group(f"t{i}", 10, 10), 5)
    kept = [tenant for tenant, *_ in model.state()["groups"]]
    assert kept == [f"t{i}" for i in range(2 * MAX_HISTOGRAMS, 3 * MAX_HISTOGRAMS)], "the last"


@settings(deadline=None)
@given(st.integers(-5, 10**12), st.integers(-5, 10**9), st.integers(0, 10**9))
def test_lengths_of_any_size_have_a_bin_and_a_finite_prediction(length, generated, most):
    assert 0 <= length_bin(length) < 48
    model = LengthModel()
    for _ in range(10):
        model.learn(GROUP, length)
    rest = model.remaining(GROUP, generated, most)
    assert 1 <= rest <= max(1, most - generated)


# -- attributes: what a client sends ----------------------------------------------------

SETTINGS = EngineSettings(
    slo_scale=2.0, contract=Contract(default_class="conversational", believe_clients=True)
)
HUGE = 10**400  # JSON allows it, a float does not hold it
UNTRUSTING = EngineSettings()
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HUGE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("tenant", "slo_class", "slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms", "slo_itl_ms")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(), anything), st.none() | st.text())
def test_nothing_in_vllm_xargs_raises(extra, lora):
    for config in (SETTINGS, UNTRUSTING):
        tenant = tenant_of(extra, lora, config)
        assert 0 < len(tenant) <= 64
        slo_class, slo = slo_of(extra, config)
        assert slo_class in {*SLO_CLASSES, "custom"}
        for target in astuple(slo):
            assert target is None or 0 < target < math.inf
        assert deadline_s(slo, 10.0, 1.0) >= 10.0


def test_explicit_targets_win_over_the_class_and_are_not_scaled():
    extra = {"slo_class": "interactive", "slo_tpot_ms": "40", "slo_itl_ms": 90}
    assert slo_of(extra, SETTINGS) == ("custom", SLO(None, 40.0, None, 90.0))
    assert slo_of({"slo_class": "interactive"}, SETTINGS) == ("interactive", SLO(1000, 60))


@pytest.mark.parametrize(
    "bad",
    ["-5", 0, -1.0, math.nan, math.inf, "soon", [500], None, HUGE],
    ids=lambda bad: str(bad)[:9],
)
def test_a_target_that_makes_no_sense_is_ignored(bad):
    extra = {"slo_class": "interactive", "slo_ttft_ms": bad}
    assert slo_of(extra, SETTINGS) == ("interactive", SLO(1000, 60))


@pytest.mark.parametrize("name", ["nope", "", 7, None, ["interactive"]])
def test_an_unknown_class_is_the_default_one(name):
    assert slo_of({"slo_class": name}, SETTINGS) == ("conversational", SLO(4000, 200))
    assert slo_of({}, SETTINGS) == ("conversational", SLO(4000, 200))


def test_classes_of_the_configuration_are_known_and_may_replace_the_built_in_ones():
    own = EngineSettings(contract=with_classes({"gold": SLO(100, 10), "batch": SLO(e2e_ms=1000)}))
    assert slo_of({"slo_class": "gold"}, own) == ("gold", SLO(100, 10))
    assert slo_of({}, own) == ("batch", SLO(e2e_ms=1000))


def test_tenants_are_believed_only_where_the_configuration_says_so():
    assert tenant_of({"tenant": " acme "}, "lora-1", SETTINGS) == "acme"
    assert tenant_of({"tenant": "acme"}, "lora-1", UNTRUSTING) == "lora-1"
    assert tenant_of({"tenant": "acme"}, None, UNTRUSTING) == "default"
    for nameless in ("  ", 7, None, ["acme"]):
        assert tenant_of({"tenant": nameless}, None, SETTINGS) == "default"
    assert len(tenant_of({"tenant": "x" * 1000}, None, SETTINGS)) == 64


def test_deadlines():
    assert deadline_s(SLO(500), 10.0, 3.0) == 10.5
    assert deadline_s(SLO(e2e_ms=8000), 10.0, 3.0) == 15.0  # 8 s less 3 s of decoding
    assert deadline_s(SLO(e2e_ms=2000), 10.0, 3.0) == 10.0  # never before arrival
    assert deadline_s(SLO(500, None, 8000), 10.0, 3.0) == 10.5
    assert deadline_s(SLO(), 10.0, 3.0) == math.inf

"""Do simulated steps scatter as the residuals do, alike in every engine, and not in the twin?"""

from dataclasses import replace

import numpy as np
import pytest

from evals.arms.sglang.engine import EmulatedSGLang
from serving.contracts import CostCoefficients, TraceRequest
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import profile_from_snapshot
from serving.engines.step_noise import STEPS, step_factors
from tests.serving.engines.both_engines import SETTINGS, Case, by_vllm, compiled, difference, drawn
from tests.serving.engines.both_engines import machine as plain_machine

RESIDUALS = (-0.2, -0.05, 0.0, 0.1, 0.4)
SECOND = CostCoefficients(1.0, 0.0, 0.0)  # every step takes a second, but for its noise


def machine(seed=1, **changes):
    return plain_machine(400, 8, 256, residuals=RESIDUALS, noise_seed=seed, **changes)


def test_factors_have_the_residuals_quantiles_and_mean():
    factors = step_factors(machine())
    found = np.quantile(factors, np.linspace(0, 1, 5)) - 1
    assert found == pytest.approx(RESIDUALS, abs=1e-3)
    mean = np.trapezoid(RESIDUALS, dx=0.25)
    assert factors.mean() - 1 == pytest.approx(mean, abs=1e-4)
    assert abs(np.corrcoef(factors[1:], factors[:-1])[0, 1]) < 0.05


def test_the_seed_alone_decides_and_no_residuals_are_no_noise():
    assert (step_factors(machine(1)) == step_factors(machine(1, block_size=32))).all()
    assert (step_factors(machine(1)) != step_factors(machine(2))).any()
    assert len(step_factors(plain_machine(400, 8, 256))) == 0


def ends_of(engine):
    """When answers of 1 to 20 tokens end that begin together: after as many steps."""
    return [one.finished_s for one in engine.run([TraceRequest(0.0, 10, n) for n in range(1, 21)])]


def test_the_same_step_has_the_same_noise_in_every_engine():
    profile = replace(machine(cost=SECOND), max_active_requests=64)
    factors = step_factors(profile)
    ends_s = np.cumsum(factors[:20])
    for stock in (True, False):
        assert ends_of(CompiledEngine(profile, SETTINGS, stock=stock)) == pytest.approx(ends_s)
    assert ends_of(EmulatedSGLang(profile, SETTINGS)) == pytest.approx(ends_s)
    quiet = replace(profile, residuals=())
    assert ends_of(CompiledEngine(quiet, SETTINGS)) == pytest.approx(np.arange(1, 21))


def test_the_noise_of_a_long_run_begins_again():
    profile = machine(cost=SECOND, max_model_len=2 * STEPS)
    profile = replace(profile, kv_blocks=4000)
    request = TraceRequest(0.0, 10, STEPS + 2)
    (outcome,) = CompiledEngine(profile, SETTINGS, stock=True).run([request])
    factors = step_factors(profile)
    assert outcome.finished_s == pytest.approx(factors.sum() + factors[:2].sum())


@pytest.mark.parametrize("kv_blocks", [400, 80])
def test_a_noisy_run_is_that_of_vllms_scheduler_under_the_same_noise(kv_blocks):
    profile = replace(machine(3), kv_blocks=kv_blocks)
    case = Case(profile, drawn(5, 120, 30.0, 200, 40))
    story = compiled(case)
    assert difference(by_vllm(case), story) == ""
    assert (story.preemptions > 0) is (kv_blocks == 80)
    quiet = compiled(replace(case, profile=replace(profile, residuals=())))
    assert difference(quiet, story)


def test_the_twin_of_a_noisy_engine_has_no_noise():
    engine = CompiledEngine(machine(), SETTINGS)
    engine.run(drawn(5, 60, 30.0, 200, 40))
    twin = profile_from_snapshot(engine.snapshot())
    assert twin.residuals == ()
    assert len(step_factors(twin)) == 0

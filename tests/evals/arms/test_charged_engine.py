"""Does control cost in the simulator what it is said to cost?"""

import pytest

from evals.arms.engine import DECISION_S, HOOK_STEP_S, LONG_DECISION_S, build_simulated
from serving.contracts import Decision, Limits, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from tests.evals.small_cases import MACHINE, workload

SETTINGS = EngineSettings()


def decision(engine):
    limits = Limits(MACHINE.max_active_requests, MACHINE.token_budget)
    return Decision("c", engine.snapshot().epoch + 1, 60.0, "edf", {}, limits, "test")


@pytest.mark.parametrize(
    ("looks_inside", "later_s"), [(False, DECISION_S), (True, LONG_DECISION_S)]
)
def test_a_decision_acts_later_than_what_it_saw(looks_inside, later_s):
    engine = build_simulated(MACHINE, SETTINGS, False)
    seen, acted = [], []

    def tick():
        seen.append(engine.snapshot().now_s)
        if looks_inside:
            engine.inside()
        assert engine.apply(decision(engine)).accepted
        acted.append(engine.now())

    engine.run(workload(200, 25.0), ((3.0, tick),))
    assert len(seen) >= 3
    for before_s, after_s in zip(seen[:-1], acted[:-1], strict=True):  # the last may be the end
        assert later_s <= after_s - before_s < later_s + 0.5  # a step is served to its end
    assert all(now_s >= 3.0 * (i + 1) for i, now_s in enumerate(seen))


def test_a_look_that_led_to_nothing_delays_no_later_decision():
    engine = build_simulated(MACHINE, SETTINGS, False)
    times: list[float] = []

    def tick():
        if not times:
            engine.inside()
        else:
            engine.apply(decision(engine))
        times.append(engine.now())

    engine.run(workload(200, 25.0), ((2.0, tick),))
    assert times[1] < 4.0 + LONG_DECISION_S


def test_time_that_passes_within_a_tick_changes_nothing_else():
    requests = workload(200, 25.0)
    engine = CompiledEngine(MACHINE, SETTINGS)
    plain = CompiledEngine(MACHINE, SETTINGS).run(requests)
    assert engine.run(requests, ((1.0, lambda: engine.serve_on(0.4)),)) == plain


def test_before_a_run_no_time_passes():
    engine = build_simulated(MACHINE, SETTINGS, False)
    engine.apply(decision(engine))
    assert engine.now() == 0.0


@pytest.mark.parametrize(("stock", "extra_s"), [(True, 0.0), (False, HOOK_STEP_S)])
def test_only_the_hook_costs_time_in_each_step(stock, extra_s):
    alone = [TraceRequest(0.0, 100, 11)]
    (free,) = CompiledEngine(MACHINE, SETTINGS, stock=True).run(alone)
    (charged,) = build_simulated(MACHINE, SETTINGS, stock).run(alone)
    assert charged.e2e_s - free.e2e_s == pytest.approx(11 * extra_s)

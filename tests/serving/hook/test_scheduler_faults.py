"""Does vLLM go on by its own rules when something of ours fails, with the fault in sight?"""

import math
from collections.abc import Callable

import pytest

from serving import compat
from serving.engines.simulated import SimulatedEngine
from serving.engines.tickers import Ticker
from tests.serving.samples import decision, mixed_load, profile
from tests.serving.simulation import SETTINGS, Run, simulate, stock_limits

MACHINE = profile(900, max_active_requests=128)
LOAD = mixed_load(200, 60.0, seed=4, mean_output_tokens=60.0)


@pytest.fixture(scope="module")
def stock() -> Run:
    run = simulate(MACHINE, LOAD, stock=True)
    assert run.preemptions > 0
    return run


def spoil(engine: SimulatedEngine) -> None:
    """From now on the policy in force has a parameter that is no number, and so have its keys."""
    engine.scheduler.queue.core.engine["kappa"] = math.nan


def spoilt_at(*, at_s: float) -> Callable[[SimulatedEngine], list[Ticker]]:
    """At a time on the engine's clock, once; 0 is before the first request comes."""

    def tickers(engine: SimulatedEngine) -> list[Ticker]:
        left = [at_s]

        def tick() -> None:
            if left and engine.now() >= left[0]:
                left.clear()
                spoil(engine)

        tick()
        return [(0.1, tick)]

    return tickers


@pytest.mark.parametrize("at_s", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("policy", ["sjf", "slide"])
def test_a_policy_at_fault_gives_way_to_fcfs_and_nobody_is_lost(policy, at_s):
    run = simulate(
        MACHINE, LOAD, before=lambda engine: engine.apply(decision(1, policy, ttl_s=9e3)),
        tickers=spoilt_at(at_s=at_s),
    )  # fmt: skip
    assert run.served == len(LOAD)
    snapshot = run.engine.snapshot()
    assert snapshot.policy == "fcfs"
    assert snapshot.policy_errors == 1
    assert snapshot.last_error == (
        f"policy {policy}, now fcfs: ValueError: a key is no number, and has no order"
    )
    served = {o.policy for o in run.outcomes}
    assert served == ({policy, "fcfs"} if at_s else {"fcfs"})
    assert snapshot.controller_id == "me", "the lease stays: the controller sees the fault"


def test_the_controller_can_choose_another_policy_after_a_fault():
    def tickers(engine: SimulatedEngine) -> list[Ticker]:
        def repair() -> None:
            if engine.snapshot().policy == "fcfs":
                assert engine.apply(decision(engine.snapshot().epoch + 1, "edf")).accepted

        return [*spoilt_at(at_s=0.5)(engine), (1.0, repair)]

    run = simulate(
        MACHINE, LOAD, before=lambda engine: engine.apply(decision(1, "sjf")), tickers=tickers
    )
    assert run.served == len(LOAD)
    assert {"sjf", "fcfs", "edf"} == {o.policy for o in run.outcomes}


@pytest.mark.parametrize("every", [1, 3])
def test_a_request_of_which_nothing_new_can_be_noted_is_served_all_the_same(every, monkeypatch):
    calls = 0

    def inject(engine: SimulatedEngine) -> None:
        real = engine.scheduler.observer.follow

        def faulty(request: object, row: int) -> None:
            nonlocal calls
            calls += 1
            if calls % every == 0:
                raise RuntimeError("injected")
            real(request, row)

        monkeypatch.setattr(engine.scheduler.observer, "follow", faulty)
        engine.apply(decision(1, "edf", ttl_s=9e3))

    run = simulate(MACHINE, LOAD, before=inject)
    assert run.served == len(LOAD)
    snapshot = run.engine.snapshot()
    assert (snapshot.policy, snapshot.policy_errors) == ("edf", calls // every)
    assert snapshot.last_error == "view: RuntimeError: injected"


POINTS = [
    "control.prepare", "observer.arrive", "observer.scheduled", "observer.completed",
    "observer.preempted", "observer.leaving",
]  # fmt: skip


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("point", POINTS)
def test_a_fault_of_ours_never_reaches_vllm_which_goes_on_as_stock(
    point, every, stock, monkeypatch
):
    calls = 0

    def inject(engine: SimulatedEngine) -> None:
        part, method = point.split(".")
        owner = getattr(engine.scheduler, part)
        real = getattr(owner, method)

        def faulty(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls % every == 0:
                raise RuntimeError(f"injected into {point}")
            return real(*args)

        monkeypatch.setattr(owner, method, faulty)

    run = simulate(MACHINE, LOAD, before=inject)
    assert run.steps == stock.steps
    assert run.served == len(LOAD)
    if point not in ("observer.preempted", "observer.leaving"):  # who is not taken out stays in
        lanes = run.engine.scheduler.queue.lanes
        assert not [lane.tenant for lane in lanes if lane.running or lane.decoding]
        assert not run.engine.scheduler.queue.rows.by_name
    snapshot = run.engine.snapshot()
    assert snapshot.policy_errors == calls // every > 0
    assert snapshot.last_error.endswith(f"RuntimeError: injected into {point}")


def test_after_a_fault_the_limits_are_stocks_until_all_is_well_again(monkeypatch):
    limits = stock_limits(MACHINE, max_active_requests=3, token_budget=100)
    engine = SimulatedEngine(MACHINE, SETTINGS)
    engine.apply(decision(1, "edf", ttl_s=9e3, limits=limits))
    engine.run(LOAD[:20], until_s=0.5)
    scheduler = engine.scheduler

    def in_force() -> tuple[int, int]:
        return scheduler.max_num_scheduled_tokens, compat.max_active(scheduler)

    # Up to vLLM 0.30 the bound cannot lie below what runs.
    acting = {(100, 3), (100, len(scheduler.running))}
    assert in_force() in acting
    with monkeypatch.context() as broken:
        broken.setattr(compat, "silent_sessions", None)
        scheduler.schedule()
    assert in_force() == (512, 128)
    acting = {(100, 3), (100, len(scheduler.running))}
    scheduler.schedule()
    assert in_force() in acting


def test_a_fault_that_repeats_is_counted_each_time_and_logged_once(caplog):
    engine = SimulatedEngine(MACHINE, SETTINGS)
    engine.scheduler.control.prepare = None
    with caplog.at_level("ERROR", logger="vllm.hmas"):
        engine.run(LOAD[:5])
    assert engine.snapshot().policy_errors > 5
    assert len([r for r in caplog.records if r.name == "vllm.hmas"]) == 1

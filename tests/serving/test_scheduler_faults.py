"""Does vLLM go on by its own rules when something of ours fails, with the fault in sight?"""

import pytest

from serving import compat
from serving.engines.simulated import SimulatedEngine
from serving.engines.tickers import Ticker
from serving.policies import POLICIES, Policy, PolicyCard
from tests.serving.samples import decision, mixed_load, profile
from tests.serving.simulation import SETTINGS, Run, simulate, stock_limits

MACHINE = profile(900, max_active_requests=128)
LOAD = mixed_load(200, 60.0, seed=4, mean_output_tokens=60.0)


@pytest.fixture(scope="module")
def stock() -> Run:
    run = simulate(MACHINE, LOAD, stock=True)
    assert run.preemptions > 0
    return run


class Failing(Policy):
    """Shortest prompt first until its time is up, then raises."""

    name = "failing"
    demotes = True
    card = PolicyCard("tests", "everything else")

    def __init__(self, good_calls: int) -> None:
        self.good_calls = good_calls

    def key(self, view, context):
        self.good_calls -= 1
        if self.good_calls < 0:
            raise ZeroDivisionError("broken policy")
        return (view.prompt_tokens,)


@pytest.mark.parametrize("good_calls", [0, 1, 50, 150])
def test_a_policy_that_raises_gives_way_to_fcfs_and_nobody_is_lost(good_calls, monkeypatch):
    monkeypatch.setitem(POLICIES, "failing", Failing(good_calls))
    run = simulate(
        MACHINE, LOAD, before=lambda engine: engine.apply(decision(1, "failing", ttl_s=9e3))
    )
    assert run.served == len(LOAD)
    snapshot = run.engine.snapshot()
    assert snapshot.policy == "fcfs"
    assert snapshot.policy_errors == 1
    assert snapshot.last_error == "policy failing, now fcfs: ZeroDivisionError: broken policy"
    assert {o.policy for o in run.outcomes} <= {"failing", "fcfs"}
    assert "fcfs" in {o.policy for o in run.outcomes}
    assert snapshot.controller_id == "me", "the lease stays: the controller sees the fault"


def test_the_controller_can_choose_another_policy_after_a_fault(monkeypatch):
    monkeypatch.setitem(POLICIES, "failing", Failing(10))

    def tickers(engine: SimulatedEngine) -> list[Ticker]:
        def repair() -> None:
            if engine.snapshot().policy == "fcfs":
                assert engine.apply(decision(engine.snapshot().epoch + 1, "edf")).accepted

        return [(1.0, repair)]

    run = simulate(
        MACHINE, LOAD, before=lambda engine: engine.apply(decision(1, "failing")), tickers=tickers
    )
    assert run.served == len(LOAD)
    assert {"failing", "fcfs", "edf"} == {o.policy for o in run.outcomes}


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
        broken.setattr(scheduler.control, "_token_budget", None)
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

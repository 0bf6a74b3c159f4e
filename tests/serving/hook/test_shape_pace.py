"""Does the hook count tokens, not steps: with speculation, and with pipeline parallelism?"""

from collections import deque

import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from serving.contracts import CostCoefficients
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from serving.core.decoding import decodes, gain_of, slack_budget
from serving.perception.cost_model import StepShape
from serving.scheduler import HMASScheduler, HMASSyncScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.hook.test_shapes import aborts, plain
from tests.serving.samples import shares
from tests.serving.shaped_scheduler import (
    STEP_S,
    Shaped,
    decode_shapes,
    with_drafts,
    with_stages,
)

ALL_RULES = {name: value for rule in RULES.values() for name, value in rule.items()}
TPOT_S = 0.6 * STEP_S  # faster than one token per step


def speculating(monkeypatch, right: int | None, ahead: int = 0, budget: int = 32) -> Shaped:
    """Four answers with three draft tokens a step, and a model of what steps cost."""
    with_drafts(monkeypatch, 3)
    cost = CostCoefficients(0.8 * STEP_S, 1e-3, 0.0)
    engine = Shaped(profile=machine(200, 8, budget), ahead=ahead, right=right, cost=cost)
    for name in ("w", "r"):  # the first ones show how many tokens come
        engine.drain()
        for i in range(4):
            engine.add(f"{name}{i}", 4, 40, slo_tpot_ms=1000 * TPOT_S)
    return engine


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize("right", [0, 3])
def test_a_decode_is_lost_or_not_by_the_tokens_that_it_gets(monkeypatch, ahead, right):
    engine = speculating(monkeypatch, right, ahead)
    engine.step(1 + ahead)
    engine.look()
    core = engine.scheduler.queue.core
    core.engine["token_budget"] = no_bound = 10_000
    assert decodes(core)[0] == 4
    assert (slack_budget(core, 0.0, 0) < no_bound) == (right == 3), "who is lost bounds nothing"


@pytest.mark.parametrize("right", [0, 3])
def test_a_step_is_sized_for_decodes_that_several_tokens_a_step_keep_in_pace(monkeypatch, right):
    """One token a step is too few whatever the step costs: then nothing is left to protect."""
    engine = speculating(monkeypatch, right, budget=48)
    engine.decide("fcfs", follow_slack=True)
    engine.step()
    engine.add("long", 44, 1)
    engine.add("next", 44, 1)
    engine.step()
    prefill = sum(tokens for name, tokens in engine.steps[-1][0] if not name.startswith("r"))
    assert (0 < prefill < 32) == (right == 3), prefill
    assert {tokens for name, tokens in engine.steps[-1][0] if name.startswith("r")} == {4}
    engine.drain()
    engine.check_books()


@pytest.mark.parametrize("right", [0, 1, 3])
@pytest.mark.parametrize("ahead", [0, 1])
def test_slack_is_until_the_tokens_of_the_coming_step_are_due(monkeypatch, ahead, right):
    """As a plain loop has it; of what is in flight, so many tokens count as usually come."""
    engine = speculating(monkeypatch, right, ahead)
    engine.step(8)
    engine.look()
    queue = engine.scheduler.queue
    for name in [name for name in engine.got if name.startswith("r")]:
        gain = gain_of(queue.core, queue.rows.by_name[name])
        assert gain == pytest.approx(1 + right, abs=0.51)
        due_s = engine.first_s[name] + TPOT_S * (engine.got[name] + gain * ahead + gain - 1.0)
        assert engine.fact(name, "slack_s") == pytest.approx(due_s - engine.now_s)


def test_answers_that_get_several_tokens_a_step_are_expected_to_end_sooner(monkeypatch):
    deadlines = []
    for right in (0, 3):
        with monkeypatch.context() as one:
            engine = speculating(one, right)
        engine.step(12)
        request = engine.add("new", 10, 5, slo_e2e_ms=60_000)
        deadlines.append(engine.scheduler.observer.view_of(request).deadline_s - engine.now_s)
        assert deadlines[-1] < 60.0
    assert 60.0 - deadlines[1] < (60.0 - deadlines[0]) / 2


def played(engine: Shaped, steps: int) -> dict[str, float]:
    """TPOT of the answers that ended while each step took what the cost model says."""
    cost = engine.cost
    assert cost is not None
    lasts = deque([STEP_S] * engine.ahead)  # of the steps in flight
    for i in range(steps):
        engine.add(f"long{i}", 44, 1)
        counts = engine.schedule().num_scheduled_tokens
        prefill = sum(tokens for name, tokens in counts.items() if name.startswith("long"))
        decodes = sum(name.startswith("r") for name in counts)
        lasts.append(StepShape(prefill, decodes).seconds(cost))
        while len(lasts) > engine.ahead:
            engine.now_s += lasts.popleft() - STEP_S
            engine.update()
    outcomes = engine.scheduler.hmas_journal(0, 10_000).outcomes
    return {o.request_id: o.tpot_s for o in outcomes if o.request_id[0] == "r"}


def test_tpot_is_kept_while_prompts_come_when_steps_bring_several_tokens(monkeypatch):
    """Prompts come faster than the decodes' pace leaves time for: without a bound it is 15 ms."""
    engine = speculating(monkeypatch, 3, budget=128)
    engine.decide("fcfs", follow_slack=True)
    tpots_s = played(engine, 40)
    assert len(tpots_s) == 4
    assert max(tpots_s.values()) <= 1.02 * TPOT_S, tpots_s
    assert sum(engine.got.get(f"long{i}", 0) for i in range(40)) >= 8, "prompts move"


# -- pipeline parallelism ----------------------------------------------------------------


def staged(monkeypatch, *, hooked: bool = True, ahead: int = 1) -> Shaped:
    with_stages(monkeypatch)
    return Shaped(
        HMASSyncScheduler if hooked else Scheduler, profile=machine(200, 8, 16), ahead=ahead
    )


def two_batches(engine: Shaped) -> None:
    """Three requests decode in one step, two in the next."""
    for i in range(3):
        engine.add(f"a{i}", 4, 40, slo_tpot_ms=1000)
    engine.schedule()
    for i in range(2):
        engine.add(f"b{i}", 6, 40, slo_tpot_ms=1000)
    engine.step(9)


def test_a_step_of_a_pipeline_is_measured_by_the_requests_in_it(monkeypatch):
    engine = staged(monkeypatch)
    two_batches(engine)
    told, learned = decode_shapes(engine, 6)
    assert {count for count, _ in told} == {2, 3}
    assert learned[1:] == told[:-1]


def test_a_decode_of_a_pipeline_gets_a_token_in_every_other_step(monkeypatch):
    """So a step may take half of its TPOT target, as long as nothing was saved."""
    engine = staged(monkeypatch)
    two_batches(engine)
    engine.step(60)
    engine.look()
    core = engine.scheduler.queue.core
    assert core.engine["turns"][0] == pytest.approx(0.5, abs=0.15)
    assert decodes(core)[0] in (2, 3)


def test_tpot_is_kept_while_prompts_come_in_a_pipeline(monkeypatch):
    """Each answer has a token in every other step."""
    with_stages(monkeypatch)
    cost = CostCoefficients(8e-3, 1e-3, 1e-4)
    engine = Shaped(HMASSyncScheduler, profile=machine(400, 16, 128), ahead=1, cost=cost)
    engine.decide("fcfs", follow_slack=True)
    for i in range(8):
        engine.add(f"r{i}", 4, 40, slo_tpot_ms=30)
        if i % 4 == 3:
            engine.step()
    tpots_s = played(engine, 140)
    assert len(tpots_s) == 8
    assert max(tpots_s.values()) <= 30e-3, tpots_s
    assert sum(engine.got.get(f"long{i}", 0) for i in range(140)) >= 8, "prompts move"


@pytest.mark.parametrize("feed", [plain, aborts])
@pytest.mark.parametrize("ahead", [1, 2])
def test_without_a_controller_a_pipeline_is_scheduled_as_by_stock_vllm(monkeypatch, feed, ahead):
    stock, hooked = (staged(monkeypatch, hooked=one, ahead=ahead) for one in (False, True))
    for arm in (stock, hooked):
        feed(arm)
        arm.drain()
    assert hooked.steps == stock.steps
    assert (hooked.got, hooked.finished) == (stock.got, stock.finished)
    hooked.check_books()


@pytest.mark.parametrize("policy", ["slide", "fair"])
@pytest.mark.parametrize(
    ("scheduler_cls", "second_runner"),
    [(HMASScheduler, True), (HMASScheduler, False), (HMASSyncScheduler, False)],
)
@pytest.mark.parametrize("feed", [plain, aborts])
def test_a_pipeline_serves_everybody_with_a_policy_and_all_rules(
    monkeypatch, policy, scheduler_cls, second_runner, feed
):
    """With vLLM's second model runner, a request decodes in every other step although ahead."""
    with_stages(monkeypatch)
    settings = EngineSettings(contract=shares({}, {"t0": 0.3}), bucket_s=0.1, max_wait_s=1.0)
    engine = Shaped(scheduler_cls, settings, profile=machine(40, 6, 16), ahead=2)
    engine.scheduler.use_v2_model_runner = second_runner
    engine.decide(policy, **ALL_RULES)
    feed(engine)
    engine.drain()
    engine.check_books()


def test_without_either_a_token_per_step_is_what_counts():
    engine = Shaped(profile=machine(200, 8, 16))
    for i in range(3):
        engine.add(f"r{i}", 4, 20, slo_tpot_ms=50)
    engine.step(6)
    queue = engine.scheduler.queue
    assert [gain_of(queue.core, row) for row in queue.rows.by_name.values()] == [1.0] * 3
    assert queue.core.engine["turns"][0] == 1.0

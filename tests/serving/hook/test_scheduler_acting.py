"""Do decisions do in the engine what they say, and never lose or kill a request?"""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.output import SchedulerOutput

from serving.contracts import Limits, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.engines.tickers import Ticker
from serving.policies import POLICIES
from tests.serving.samples import decision, mixed_load, profile
from tests.serving.simulation import SETTINGS, Run, journal_of, simulate, stock_limits

ROOMY, TIGHT = profile(20_000), profile(900, max_active_requests=128)
LOAD = mixed_load(300, 60.0, seed=3)
LONG_ANSWERS = mixed_load(250, 40.0, seed=2, mean_output_tokens=120.0)
FOREVER_S = 80_000.0


def under(machine, requests, policy="fcfs", **changes) -> Run:
    """A run under one decision from beginning to end."""
    limits = stock_limits(machine, **changes)

    def decide(engine: SimulatedEngine) -> None:
        assert engine.apply(decision(1, policy, ttl_s=FOREVER_S, limits=limits)).accepted

    return simulate(machine, requests, before=decide)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_serves_everyone_and_stamps_what_it_served(name):
    run = under(TIGHT, LOAD, name)
    assert run.served == len(LOAD)
    assert {(o.policy, o.epoch) for o in run.outcomes} == {(name, 1)}
    snapshot = run.engine.snapshot()
    assert (snapshot.policy, snapshot.policy_errors, snapshot.controller_id) == (name, 0, "me")
    if name not in {"fcfs", "prefix"}:  # nothing is cached here
        assert run.steps != simulate(TIGHT, LOAD).steps


def test_the_default_comes_back_when_the_controller_falls_silent():
    seen: dict[float, tuple[str, str, int, int]] = {}
    limits = stock_limits(ROOMY, token_budget=256, long_prefill_threshold=64)

    def watch(engine: SimulatedEngine) -> list[Ticker]:
        def tick() -> None:
            now_s = round(engine.now())
            if now_s == 1:
                engine.apply(decision(1, "edf", ttl_s=2.0, limits=limits))
            if now_s == 2:
                engine.renew("me", 2.0)  # the last sign of life: it ends at 4 s
            shot = engine.snapshot()
            seen[now_s] = (shot.policy, shot.controller_id, shot.epoch, shot.limits.token_budget)

        return [(1.0, tick)]

    run = simulate(ROOMY, mixed_load(240, 40.0, seed=3), tickers=watch)
    assert seen[1] == seen[2] == seen[3] == ("edf", "me", 1, 256)
    assert seen[5] == ("fcfs", "", 2, 512)
    assert run.engine.scheduler.scheduler_config.long_prefill_token_threshold == 0
    assert {(o.policy, o.epoch) for o in run.outcomes} == {("fcfs", 0), ("edf", 1), ("fcfs", 2)}
    assert run.served == 240


def test_the_kill_switch_acts_from_the_next_step_on_and_keeps_every_decision_out():
    engine = SimulatedEngine(ROOMY, SETTINGS)
    limits = stock_limits(ROOMY, token_budget=256, long_prefill_threshold=64)
    steps: list[tuple[str, int]] = []  # policy in force, tokens scheduled
    asked: list[tuple[float, bool]] = []
    stopped_at_step = None

    def tick() -> None:
        nonlocal stopped_at_step
        now_s = round(engine.now())
        if now_s == 3:
            assert engine.stop("alice@desk", "trial").accepted
            stopped_at_step = len(steps)
        if now_s == 5:
            assert engine.start("alice@desk").accepted
        ack = engine.apply(decision(engine.snapshot().epoch + 1, "edf", limits=limits))
        asked.append((now_s, ack.accepted))
        stopped = engine.snapshot().stopped
        assert (stopped is not None) == (now_s in (3, 4))

    def on_step(output: SchedulerOutput) -> None:
        steps.append((engine.snapshot().policy, output.total_num_scheduled_tokens))

    outcomes = engine.run(mixed_load(240, 40.0, seed=3), [(1.0, tick)], 6.0, on_step=on_step)
    assert [now_s for now_s, accepted in asked if not accepted] == [3, 4]
    assert stopped_at_step is not None
    before, after = steps[:stopped_at_step], steps[stopped_at_step:]
    assert before[-1][0] == "edf"
    assert after[0][0] == "fcfs", "the very next step"
    assert max(tokens for policy, tokens in steps if policy == "edf") <= 256
    assert max(tokens for policy, tokens in after if policy == "fcfs") > 256
    assert after[-1][0] == "edf", "let in again"
    served = {(o.policy, o.epoch) for o in outcomes}
    assert {("edf", 2), ("fcfs", 3), ("edf", 4)} <= served, "outcomes tell which was which"


def test_an_idle_engine_loses_its_controller_too():
    engine = SimulatedEngine(ROOMY, SETTINGS)
    engine.apply(decision(1, "edf", ttl_s=5.0))
    engine.run([TraceRequest(20.0, 10, 1)])
    assert engine.snapshot().policy == "fcfs"
    assert engine.apply(decision(3, "sjf", controller_id="you")).accepted
    assert not engine.apply(decision(4, "sjf")).accepted, "one controller at a time"
    assert engine.release("you").accepted
    assert engine.snapshot().policy == "fcfs"


def test_limits_outside_the_envelope_are_clamped_and_told():
    engine = SimulatedEngine(ROOMY, SETTINGS)
    ack = engine.apply(decision(1, limits=Limits(10**9, 10**9, 10**9, prefill_share=5.0)))
    assert ack.accepted
    inside = engine.snapshot().limits
    assert inside == Limits(64, 512, 16_384, prefill_share=0.9)
    assert ack.clamped == {
        "max_active_requests": 64, "token_budget": 512, "long_prefill_threshold": 16_384,
        "prefill_share": 0.9,
    }  # fmt: skip
    ack = engine.apply(decision(2, limits=Limits(-1, 0, -5, prefill_share=-1.0)))
    assert engine.snapshot().limits == Limits(1, 1)
    assert set(ack.clamped) == {*ack.clamped} > {"token_budget"}


def test_the_token_budget_and_the_long_prefill_threshold_bound_every_step():
    run = under(ROOMY, LOAD, token_budget=128, long_prefill_threshold=50)
    assert max(sum(n for _, n in step[0]) for step in run.steps) == 128
    together = [step[0] for step in run.steps if len(step[0]) > 1]
    assert max(n for tokens in together for _, n in tokens) == 50
    assert run.served == len(LOAD)


def test_lowering_the_number_of_active_requests_drains_and_kills_nobody():
    at_s, most = 2.0, 4
    engine = SimulatedEngine(ROOMY, SETTINGS)
    limits = stock_limits(ROOMY, max_active_requests=most)
    requests = mixed_load(120, 60.0, seed=3, mean_output_tokens=60.0)
    running: list[tuple[bool, int]] = []
    preempted: set[str] = set()

    def lower() -> None:
        engine.apply(decision(1, ttl_s=FOREVER_S, limits=limits))

    def watch(output: SchedulerOutput) -> None:
        running.append((engine.snapshot().epoch == 1, len(engine.scheduler.running)))
        preempted.update(output.preempted_req_ids or ())

    outcomes = engine.run(requests, [(at_s, lower)], on_step=watch)
    before = [count for lowered, count in running if not lowered]
    after = [before[-1], *(count for lowered, count in running if lowered)]
    assert before[-1] > 2 * most
    assert all(count <= max(most, last) for last, count in itertools.pairwise(after))
    assert after.count(most) > 10, "full, once it has drained"
    assert preempted == set()
    assert [o.output_tokens for o in outcomes] == [r.output_tokens for r in requests]


@pytest.mark.parametrize("max_wait_s", [2.0, 900.0])
def test_nobody_waits_much_longer_than_the_ceiling(max_wait_s):
    """A long prompt under shortest-job-first, with more short ones coming than are served."""
    machine = profile(20_000, max_active_requests=4)
    shorts = [TraceRequest(0.02 * i, 100, 20, "short") for i in range(400)]
    requests = [*shorts[:50], TraceRequest(1.0, 4000, 5, "long"), *shorts[50:]]
    limits = stock_limits(machine)
    run = simulate(
        machine, requests, settings=EngineSettings(max_wait_s=max_wait_s),
        before=lambda engine: engine.apply(
            decision(1, "sjf", ttl_s=FOREVER_S, params={"kappa": 1000.0}, limits=limits)
        ),
    )  # fmt: skip
    waited_s = run.outcomes[50].queue_s
    assert waited_s is not None
    if max_wait_s == 2.0:
        assert 2.0 <= waited_s < 2.5
    else:
        assert waited_s > 8.0, "without a ceiling it waits for the end"


def test_the_load_slides_up_in_overload_and_back_when_it_is_over():
    loads: list[float] = []

    def watch(engine: SimulatedEngine) -> list[Ticker]:
        engine.apply(decision(1, "slide", ttl_s=FOREVER_S, limits=stock_limits(ROOMY)))
        return [(0.5, lambda: loads.append(engine.scheduler.queue.core.engine["load"][0]))]

    burst = [TraceRequest(0.002 * i, 1000, 2, "a", "interactive") for i in range(400)]
    later = [TraceRequest(30.0 + i, 10, 100, "a", "interactive") for i in range(5)]
    run = simulate(ROOMY, [*burst, *later], tickers=watch)
    assert (max(loads), loads[-1]) == (1.0, 0.0)
    assert run.served == 405


def test_following_slack_saves_decodes_and_serves_as_many():
    machine = profile(20_000, token_budget=2048)
    chats = [TraceRequest(0.01 * i, 20, 12, "a", "interactive") for i in range(700)]
    documents = [TraceRequest(0.7 * i, 12_000, 10, "b", "document") for i in range(10)]
    requests = sorted([*chats, *documents], key=lambda request: request.arrival_s)
    plain, following = (under(machine, requests, "edf", follow_slack=on) for on in (False, True))
    late, saved = (sum(o.miss == "tpot" for o in run.outcomes) for run in (plain, following))
    assert late > 50, "there is something to save"
    assert saved < late / 10
    assert sum(o.met for o in following.outcomes) > sum(o.met for o in plain.outcomes)
    assert plain.served == following.served == len(requests)
    assert following.engine.snapshot().rules["slack_bound_steps"] > 0


whole = st.sampled_from([-(10**9), 0, 1, 2, 7, 64, 512, 10**9])
wild_limits = st.builds(
    Limits,
    max_active_requests=whole,
    token_budget=whole,
    long_prefill_threshold=whole,
    prefill_share=st.sampled_from([-1.0, 0.0, 0.2, 0.9, 7.0, float("nan"), float("inf")]),
    follow_slack=st.booleans(),
)
wild_decisions = st.builds(
    decision,
    epoch=st.just(0),
    policy=st.sampled_from([*POLICIES, "nope"]),
    controller_id=st.sampled_from(["me", "you", ""]),
    ttl_s=st.sampled_from([0.05, 0.5, FOREVER_S, -1.0]),
    params=st.sampled_from([{}, {"kappa": 1e9}, {"kappa": 0.0}, {"nope": 1.0}]),
    limits=wild_limits,
)
small_requests = st.lists(
    st.builds(
        TraceRequest,
        arrival_s=st.floats(0, 2),
        prompt_tokens=st.integers(1, 60),
        output_tokens=st.integers(1, 12),
        tenant=st.sampled_from(["", "a", "b"]),
        slo_class=st.sampled_from(["interactive", "batch", "nope"]),
        priority=st.integers(-9, 9),
    ),
    min_size=1,
    max_size=25,
).map(lambda requests: sorted(requests, key=lambda request: request.arrival_s))


@settings(max_examples=40, deadline=None)
@given(
    requests=small_requests,
    decisions=st.lists(st.tuples(wild_decisions, st.booleans()), max_size=30),
    kv_blocks=st.sampled_from([8, 20, 1000]),
)
def test_whatever_is_decided_every_request_is_served(requests, decisions, kv_blocks):
    """Whatever is decided when: nobody is lost, and the books add up."""
    machine = replace(profile(kv_blocks, max_active_requests=8, token_budget=64), max_model_len=96)
    waiting = list(decisions)

    def decide(engine: SimulatedEngine) -> list[Ticker]:
        def tick() -> None:
            if waiting:
                wild, release = waiting.pop(0)
                before = engine.snapshot().epoch
                engine.apply(replace(wild, epoch=before + 1))
                if release:
                    engine.release("me")
                after = engine.snapshot()
                assert after.epoch >= before
                assert 1 <= after.limits.token_budget <= 64

        return [(0.1, tick)]

    run = simulate(machine, requests, tickers=decide)
    assert run.served == len(requests)
    assert len(journal_of(run.engine)[1]) == len(requests)
    snapshot = run.engine.snapshot()
    assert (snapshot.queue.waiting, snapshot.batch.running, snapshot.kv.used_blocks) == (0, 0, 0)
    assert sum(row.finished for row in snapshot.counters) == len(requests)
    assert snapshot.policy_errors == 0, snapshot.last_error

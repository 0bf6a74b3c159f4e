"""Does a simulation that starts from an engine's present state go on as the engine would?

Fields that may differ, and do in the tests below:
- `request_id`, `seq`: the requests have other names; `policy`, `epoch` of those that were
  admitted before;
- with a token budget sized by slack, chunks differ by a few tokens: the margin that the cost
  model has learned begins anew;
- where an order needs predicted lengths: an engine predicts at arrival, a resumed one for
  all at once, by what is known by then.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import (
    SLO,
    Limits,
    Outcome,
    ResidentPage,
    ResidentRequest,
    Snapshot,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun
from serving.engines.simulated import SimulatedEngine
from tests.serving.samples import decision, mixed_load, profile, sessions
from tests.serving.simulation import SETTINGS, stock_limits

ROOMY, TIGHT = profile(20_000, 128, 2048), profile(1_500, 128, 2048)
FAST = ("interactive", "conversational", "document", "best_effort")


def load_of(count: int, seed: int, rate_rps: float = 60.0) -> list[TraceRequest]:
    """More than the machine can serve; the answers that requests allow are as in a live run."""
    drawn = mixed_load(count, rate_rps, seed, mean_output_tokens=60.0, classes=FAST)
    return [
        replace(
            r, prompt_tokens=min(r.prompt_tokens, 3000),
            output_tokens=min(r.output_tokens, 300), max_tokens=400,
        )
        for r in drawn
    ]  # fmt: skip


BUSY = load_of(500, seed=3, rate_rps=90.0)


@dataclass(frozen=True, slots=True)
class Fork:
    """A run, and what came of its second half when another engine took over.

    `pairs`: of each request inside or yet to come, the outcome in the run, its times counted
    from the fork, and that in the fork.
    """

    page: ResidentPage
    resumed_page: ResidentPage
    before: Snapshot
    after: Snapshot
    pairs: list[tuple[Outcome, Outcome]]

    @property
    def changed_verdicts(self) -> int:
        return sum(a.met != b.met for a, b in self.pairs)


def fork(
    machine: EngineProfile,
    load: Sequence[TraceRequest],
    at_s: float,
    policy: str = "fcfs",
    limits: Limits | None = None,
    *,
    stock: bool = False,
) -> Fork:
    """Run `load`, fork the engine at the first step after `at_s`, and let both go on."""
    decided = decision(1, policy, ttl_s=10_000.0, limits=limits or stock_limits(machine))
    engine = SimulatedEngine(machine, SETTINGS)
    assert engine.apply(decided).accepted
    seen: list[tuple[ResidentPage, Snapshot, list[Outcome]]] = []

    def look() -> None:
        if not seen:
            ended = list(engine.journal(0, 20_000).outcomes)
            seen.append((engine.inside(), engine.snapshot(), ended))

    outcomes = engine.run(load, [(at_s, look)])
    page, before, ended = seen[0]
    at_s = page.now_s
    other = SimulatedEngine(machine, SETTINGS, stock=stock)
    index = [int(one.request_id[1:]) for one in page.requests]
    if not stock:
        other.learn_lengths(
            (o.tenant, o.prompt_tokens, load[int(o.request_id[1:])].max_tokens or 1,
             o.output_tokens) for o in ended
        )  # fmt: skip
        assert other.apply(decided).accepted
    other.resume(
        [
            Begun(from_now(one, at_s), load[i].output_tokens)
            for i, one in zip(index, page.requests, strict=True)
        ],
        page.prefill_s_per_token,
    )
    after = before if stock else other.snapshot()
    resumed_page = page if stock else other.inside()
    later = [i for i, request in enumerate(load) if request.arrival_s > at_s]
    forked = other.run([replace(load[i], arrival_s=load[i].arrival_s - at_s) for i in later])
    assert stock or other.snapshot().policy_errors == 0
    expected = [
        replace(
            outcomes[i], arrival_s=outcomes[i].arrival_s - at_s,
            finished_s=outcomes[i].finished_s - at_s,
        )
        for i in [*index, *later]
    ]  # fmt: skip
    found = [*other.resumed_outcomes, *forked]
    return Fork(page, resumed_page, before, after, list(zip(expected, found, strict=True)))


def from_now(one: ResidentRequest, now_s: float) -> ResidentRequest:
    """The same request on a clock whose second 0 is now."""
    return replace(
        one,
        arrival_s=one.arrival_s - now_s,
        admitted_s=None if one.admitted_s is None else one.admitted_s - now_s,
        first_token_s=None if one.first_token_s is None else one.first_token_s - now_s,
    )


def figures(outcome: Outcome) -> list[object]:
    """What must be the same, times to the microsecond."""
    times = (
        outcome.arrival_s, outcome.finished_s, outcome.queue_s, outcome.ttft_s, outcome.tpot_s
    )  # fmt: skip
    return [
        outcome.tenant, outcome.slo_class, outcome.slo, outcome.prompt_tokens,
        outcome.output_tokens, outcome.met, outcome.miss, outcome.finish, outcome.preemptions,
        *(None if t is None else pytest.approx(t, abs=1e-6) for t in times),
    ]  # fmt: skip


@pytest.mark.parametrize("machine", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("policy", ["fcfs", "edf", "slide", "mlfq"])
def test_a_fork_goes_on_exactly_as_the_run_did(machine, policy):
    found = fork(machine, BUSY, 3.0, policy)
    running = [one for one in found.page.requests if one.running]
    assert len(running) > 20
    assert len(found.page.requests) - len(running) > 15, "some wait, too"
    if machine is TIGHT:
        before = sum(one.preemptions for one in found.page.requests)
        assert 0 < before < sum(o.preemptions for _, o in found.pairs), "before and after"
    assert 0 < sum(o.met for o, _ in found.pairs) < len(found.pairs)
    for expected, outcome in found.pairs:
        assert figures(outcome) == figures(expected)


@pytest.mark.parametrize("machine", [ROOMY, TIGHT], ids=["roomy", "tight"])
@pytest.mark.parametrize("policy", ["fcfs", "edf", "slide", "density"])
def test_with_a_budget_sized_by_slack_hardly_a_verdict_changes(machine, policy):
    limits = stock_limits(machine, follow_slack=True)
    found = fork(machine, BUSY, 3.0, policy, limits)
    assert found.changed_verdicts <= 0.02 * len(found.pairs)
    assert {b.finish for _, b in found.pairs} == {"stop"}


@pytest.mark.parametrize("policy", ["density", "srpt"])
def test_where_the_order_needs_lengths_hardly_a_verdict_changes(policy):
    found = fork(TIGHT, BUSY, 3.0, policy)
    assert found.changed_verdicts <= 0.02 * len(found.pairs)


def test_stock_vllm_resumes_like_the_hook_that_does_not_act():
    found = fork(TIGHT, BUSY, 3.0, stock=True)
    for expected, outcome in found.pairs:
        assert figures(outcome) == figures(expected)


def test_stock_vllm_has_those_that_were_preempted_in_front():
    engine = SimulatedEngine(profile(max_active_requests=1), SETTINGS, stock=True)
    preempted = decoding(running=False, computed_tokens=0, preemptions=1)
    engine.resume([Begun(decoding(arrival_s=-9.0, **WAITING), 5), Begun(preempted, 20)])
    engine.run([])
    older, back = engine.resumed_outcomes
    assert back.finished_s < older.finished_s
    assert (back.output_tokens, back.ttft_s, back.preemptions) == (20, 2.0, 1)


def test_the_resumed_engine_is_in_the_state_that_was_seen():
    found = fork(TIGHT, BUSY, 3.0, "edf", stock_limits(TIGHT, follow_slack=True))
    seen = [from_now(one, found.page.now_s) for one in found.page.requests]
    assert [replace(one, request_id="") for one in found.resumed_page.requests] == [
        replace(one, request_id="") for one in seen
    ]
    before, after = found.before, found.after
    assert after.kv.used_blocks == before.kv.used_blocks
    assert (after.batch.running, after.batch.decoding, after.batch.prefilling) == (
        before.batch.running, before.batch.decoding, before.batch.prefilling
    )  # fmt: skip
    assert after.batch.decode_slack_p10_s == pytest.approx(before.batch.decode_slack_p10_s)
    assert after.queue.waiting_tokens == before.queue.waiting_tokens
    assert after.queue.p10_laxity_s == pytest.approx(before.queue.p10_laxity_s)
    assert after.queue.oldest_wait_s == pytest.approx(before.queue.oldest_wait_s)


@settings(max_examples=int(os.environ.get("HMAS_EXAMPLES", "15")), deadline=None)
@given(
    seed=st.integers(0, 10_000), at_s=st.floats(0.01, 1.5), kv_blocks=st.integers(100, 400),
    policy=st.sampled_from(["fcfs", "edf", "slide"]),
)  # fmt: skip
def test_at_any_moment_nobody_is_lost_and_nobody_is_served_twice(seed, at_s, kv_blocks, policy):
    load = [replace(r, prompt_tokens=min(r.prompt_tokens, 800)) for r in load_of(40, seed)]
    found = fork(profile(kv_blocks, 24, 512), load, at_s, policy)
    assert [b.finish for _, b in found.pairs] == ["stop"] * len(found.pairs)
    assert [b.output_tokens for _, b in found.pairs] == [a.output_tokens for a, _ in found.pairs]
    if policy == "fcfs":
        for expected, outcome in found.pairs:
            assert figures(outcome) == figures(expected)
    else:  # a request becomes hopeless by a rate that an engine follows in steps of its own
        met = [sum(each.met for each in side) for side in zip(*found.pairs, strict=True)]
        assert abs(met[0] - met[1]) <= 2


def decoding(**changes: object) -> ResidentRequest:
    """A request with 10 of its tokens out, from an engine that admitted it 2 s ago."""
    fields = {
        "request_id": "live-1", "arrival_s": -3.0, "tenant": "acme", "slo_class": "interactive",
        "slo": SETTINGS.slo_of("interactive"), "prompt_tokens": 100, "max_tokens": 64,
        "running": True, "computed_tokens": 109, "output_tokens": 10, "admitted_s": -2.0,
        "first_token_s": -1.0,
    }  # fmt: skip
    return ResidentRequest(**{**fields, **changes})  # type: ignore[arg-type]


WAITING = {"running": False, "computed_tokens": 0, "output_tokens": 0, "admitted_s": None,
           "first_token_s": None}  # fmt: skip


def resumed(
    begun: Sequence[Begun], machine: EngineProfile = ROOMY, simulation: EngineSettings = SETTINGS
) -> SimulatedEngine:
    """An engine that has served these requests."""
    engine = SimulatedEngine(machine, simulation)
    engine.resume(begun)
    assert engine.run([]) == []
    return engine


def test_times_are_measured_from_the_true_arrival_and_first_token():
    (outcome,) = resumed([Begun(decoding(), 21)]).resumed_outcomes
    assert (outcome.queue_s, outcome.ttft_s) == (1.0, 2.0)
    assert (outcome.output_tokens, outcome.finish) == (21, "stop")
    assert outcome.e2e_s == pytest.approx(3.0 + outcome.finished_s)
    assert outcome.tpot_s == pytest.approx((1.0 + outcome.finished_s) / 20)
    assert outcome.miss == "ttft_queue"


def test_a_request_keeps_targets_of_its_own():
    own = SLO(ttft_ms=5_000.0, tpot_ms=400.0)
    engine = SimulatedEngine(ROOMY, SETTINGS)
    engine.resume([Begun(decoding(slo_class="custom", slo=own, **WAITING), 5)])
    (one,) = engine.inside().requests
    assert (one.slo_class, one.slo) == ("custom", own)
    assert engine.snapshot().queue.min_laxity_s == pytest.approx(5.0 - 3.0 - 100 * 35e-6)
    engine.run([])
    assert engine.resumed_outcomes[0].met


@pytest.mark.parametrize(
    "machine", [profile(20), profile(max_active_requests=2)], ids=["blocks", "batch"]
)
def test_those_for_whom_there_is_no_room_wait_and_are_computed_again(machine):
    """Of 20 blocks one is vLLM's own: two requests of 7 fit."""
    engine = SimulatedEngine(machine, SETTINGS)
    engine.resume([Begun(decoding(request_id=str(i)), 12) for i in range(3)])
    batch, queue = engine.snapshot().batch, engine.snapshot().queue
    assert (batch.decoding, queue.waiting) == (2, 1)
    assert [one.computed_tokens for one in engine.inside().requests] == [109, 109, 0]
    engine.run([])
    assert [o.output_tokens for o in engine.resumed_outcomes] == [12, 12, 12]
    assert [o.ttft_s for o in engine.resumed_outcomes] == [2.0, 2.0, 2.0]


def test_tenants_buckets_are_full_when_their_oldest_request_arrives():
    engine = SimulatedEngine(ROOMY, SETTINGS)
    limits = stock_limits(ROOMY, tenant_buckets=True)
    assert engine.apply(decision(1, "edf", ttl_s=1000.0, limits=limits)).accepted
    engine.resume([Begun(decoding(arrival_s=-30.0 + i, **WAITING), 5) for i in range(3)])
    assert engine.snapshot().rules["over_share"] == 0


def test_a_step_is_expected_to_take_as_long_as_the_batch_needs():
    """Deadlines of end-to-end targets go by it."""
    engine = SimulatedEngine(ROOMY, SETTINGS)
    engine.resume([Begun(decoding(), 30)])
    assert engine.snapshot().batch.last_step_s == pytest.approx(6.5e-3 + 35e-6 + 33e-9 * 109)


def test_a_run_stops_once_those_that_matter_have_left():
    later = [TraceRequest(0.1 * i, 100, 5) for i in range(50)]
    engine = SimulatedEngine(ROOMY, SETTINGS)
    engine.resume([Begun(decoding(), 30)])
    outcomes = engine.run(later, until_left=["b0", "r3"])
    assert engine.resumed_outcomes[0].finish == outcomes[3].finish == "stop"
    assert engine.now() < 1.0
    assert {o.finish for o in outcomes[10:]} == {"unfinished"}
    assert len(outcomes) == 50


def test_nothing_to_wait_for_is_no_run():
    """What left before the run, for being too long, is not waited for."""
    engine = SimulatedEngine(replace(ROOMY, max_model_len=100), SETTINGS)
    engine.resume([Begun(decoding(), 30)])
    (outcome,) = engine.run([TraceRequest(0.0, 10, 5)], until_left=["b0"])
    assert (engine.resumed_outcomes[0].finish, outcome.finish) == ("rejected", "unfinished")


@pytest.mark.parametrize("learnt", [True, False])
def test_lengths_that_another_engine_saw_order_the_first_step(learnt):
    """`srpt` takes the tenant with short answers first, if it knows."""
    engine = SimulatedEngine(profile(max_active_requests=1), SETTINGS)
    if learnt:
        engine.learn_lengths(
            answer for _ in range(40) for answer in [("wordy", 90, 400, 300), ("terse", 90, 400, 4)]
        )
        assert engine.snapshot().length_coverage is not None
    limits = stock_limits(engine.profile)
    assert engine.apply(decision(1, "srpt", ttl_s=1000.0, limits=limits)).accepted
    engine.resume([Begun(decoding(tenant="wordy", max_tokens=400, **WAITING), 5)])
    terse = TraceRequest(0.0, 100, 5, "terse", "interactive", max_tokens=400)
    (outcome,) = engine.run([terse])
    assert (outcome.finished_s < engine.resumed_outcomes[0].finished_s) == learnt


@pytest.mark.parametrize(
    ("changes", "output_tokens", "named"),
    [({"arrival_s": 0.5}, 20, "arrival_s"), ({}, 10, "output_tokens"),
     ({"computed_tokens": 110}, 20, "computed_tokens")],
)  # fmt: skip
def test_a_request_that_cannot_go_on_is_refused_by_name(changes, output_tokens, named):
    with pytest.raises(ValueError, match=rf"live-1: {named} = "):
        Begun(decoding(**changes), output_tokens)


def test_an_engine_that_has_begun_is_not_resumed():
    engine = resumed([Begun(decoding(), 12)])
    with pytest.raises(ValueError, match="once and before run"):
        engine.resume([])


def test_with_prefix_caching_residents_share_blocks_and_arrivals_find_what_was_there():
    """What of the cache nobody inside uses, the page does not say: arrivals bring it along."""
    machine = replace(profile(1_500, 128, 2048), prefix_caching=True)
    load = [replace(r, max_tokens=400) for r in sessions(400, 25.0, 5, 60.0)]
    engine = SimulatedEngine(machine, SETTINGS)
    seen: list[tuple[ResidentPage, Snapshot]] = []

    def look() -> None:
        if not seen:
            seen.append((engine.inside(), engine.snapshot()))

    outcomes = engine.run(load, [(8.0, look)])
    page, before = seen[0]
    inside = [int(one.request_id[1:]) for one in page.requests]
    other = SimulatedEngine(machine, SETTINGS)
    other.resume(
        [
            Begun(from_now(one, page.now_s), load[i].output_tokens)
            for i, one in zip(inside, page.requests, strict=True)
        ],
        page.prefill_s_per_token,
    )
    after = other.snapshot()
    assert after.batch.running == before.batch.running > 10
    assert after.kv.used_blocks == pytest.approx(before.kv.used_blocks, abs=3)
    held = sum(-(-one.computed_tokens // 16) for one in page.requests if one.running)
    assert before.kv.used_blocks < 0.9 * held, "they share blocks"
    first = max(inside) + 1
    came = [
        replace(r, arrival_s=r.arrival_s - page.now_s, cached_tokens=o.cached_tokens)
        for r, o in zip(load[first:], outcomes[first:], strict=True)
    ]
    pairs = list(zip(other.run(came), outcomes[first:], strict=True))
    found = sum(o.cached_tokens for o, _ in pairs) / sum(o.cached_tokens for _, o in pairs)
    assert found == pytest.approx(1.0, abs=0.1)
    assert sum(a.met != b.met for a, b in pairs) < 0.05 * len(pairs)

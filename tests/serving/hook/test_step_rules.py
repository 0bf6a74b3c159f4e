"""Does each short-horizon rule act and count itself where it is on, and do nothing where off?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import SLO, Limits, TraceRequest, with_classes
from serving.contracts.rules import RULES, rules_in_force, with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from tests.serving.samples import STOCK, decision, mixed_load, profile
from tests.serving.simulation import SETTINGS, Run, journal_of, simulate, stock_limits

ROOMY, TIGHT = profile(20_000), profile(900, max_active_requests=128)
LONG_ANSWERS = mixed_load(200, 60.0, seed=2, mean_output_tokens=120.0)


def under(
    requests: Sequence[TraceRequest], policy: str = "edf", machine=ROOMY,
    settings: EngineSettings = SETTINGS,
    watch: Callable[[SimulatedEngine], None] = lambda engine: None, **limits,
) -> Run:  # fmt: skip
    """A run under one decision from beginning to end; everybody must be served."""
    wanted: Limits = replace(stock_limits(machine), **limits)

    def decide(engine: SimulatedEngine) -> None:
        made = decision(1, policy, ttl_s=80_000.0, limits=wanted)
        assert engine.apply(made).accepted
        watch(engine)

    run = simulate(machine, requests, settings=settings, before=decide)
    assert run.served == len(requests)
    assert run.engine.snapshot().policy_errors == 0, run.engine.snapshot().last_error
    return run


def counts(run: Run) -> dict[str, int]:
    return run.engine.snapshot().rules


def ttft_s(run: Run, index: int) -> float:
    value = run.outcomes[index].ttft_s
    assert value is not None
    return value


def test_default_limits_switch_every_rule_off():
    for policy, machine in (("fcfs", ROOMY), ("sjf", TIGHT)):
        run = under(LONG_ANSWERS, policy, machine)
        assert set(counts(run).values()) == {0}, counts(run)


def test_each_rules_name_changes_what_it_says_and_an_unknown_one_is_refused():
    stock = stock_limits(ROOMY)
    for name, fields in RULES.items():
        assert with_rules(stock, [name]) == replace(stock, **fields) != stock
    with pytest.raises(ValueError, match="'nope' does not exist; there are slack, demote"):
        with_rules(stock, ["nope"])


@pytest.mark.parametrize(("off", "left"), [("balance", "serial"), ("serial", "balance")])
def test_serial_and_balance_are_switched_independently(off, left):
    assert not RULES["serial"].keys() & RULES["balance"].keys()
    stock = stock_limits(ROOMY)
    both = with_rules(stock, [off, left])
    without = replace(both, **{field: getattr(stock, field) for field in RULES[off]})
    assert without == with_rules(stock, [left])


# -- serial: prefill by key --------------------------------------------------------------

DOCUMENT = TraceRequest(0.0, 12_000, 20, "b", "document")


@pytest.mark.parametrize("most_begun", [0, 1], ids=["any number begun", "one begun"])
@pytest.mark.parametrize("prompt", [60, 450], ids=["beside it", "instead of it"])
def test_an_urgent_short_request_passes_a_prefill_that_has_begun(prompt, most_begun):
    urgent = [TraceRequest(0.1 * i, prompt, 3, "a", "interactive") for i in (1, 2, 3)]
    requests = [DOCUMENT, *urgent]
    off, on = (
        under(requests, prefill_by_key=flag, max_partial_prefills=most_begun)
        for flag in (False, True)
    )
    assert counts(off)["yielded_prefills"] == 0 < counts(on)["yielded_prefills"]
    for i in (1, 2, 3):
        assert ttft_s(on, i) < min(0.15, ttft_s(off, i) / 2)
    assert ttft_s(on, 0) < ttft_s(off, 0) + 0.2, "the one that was begun still finishes"


@pytest.mark.parametrize("most_begun", [0, 1], ids=["any number begun", "one begun"])
def test_a_prefill_is_never_left_out_of_two_steps_in_a_row(most_begun):
    """However many urgent requests come."""
    urgent = [TraceRequest(0.005 * i, 450, 3, "a", "interactive") for i in range(1, 150)]
    run = under([DOCUMENT, *urgent], prefill_by_key=True, max_partial_prefills=most_begun)
    steps = [dict(step[0]) for step in run.steps]
    first = next(i for i, step in enumerate(steps) if "r0" in step)
    done, left_out, longest = 0, 0, 0
    for step in steps[first:]:
        if done >= DOCUMENT.prompt_tokens:
            break
        done += step.get("r0", 0)
        left_out = 0 if "r0" in step else left_out + 1
        longest = max(longest, left_out)
    assert longest == 1, "it sat out steps, but never two running"
    assert counts(run)["yielded_prefills"] > 5


# -- serial: one begun at a time ----------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "most"), [({"max_partial_prefills": 3}, 3), (RULES["serial"], 1)], ids=["3", "serial"]
)
def test_no_more_prefills_begin_while_so_many_are_begun(held, most):
    requests = [TraceRequest(0.02 * i, 1500, 5, "a", "document") for i in range(40)]

    def run(**held) -> tuple[SimulatedEngine, list[tuple[int, int]]]:
        engine, seen = SimulatedEngine(ROOMY, SETTINGS), list[tuple[int, int]]()
        limits = stock_limits(ROOMY, long_prefill_threshold=100, **held)
        engine.apply(decision(1, "edf", ttl_s=80_000.0, limits=limits))
        begun = [0]

        def watch(output) -> None:
            seen.append((begun[0], len(output.scheduled_new_reqs)))
            begun[0] = sum(r.is_prefill_chunk for r in engine.scheduler.running)

        outcomes = engine.run(requests, on_step=watch)
        assert all(o.finish == "stop" for o in outcomes)
        return engine, seen

    engine, seen = run(**held)
    assert [new for begun, new in seen if begun >= most and new] == []
    assert engine.snapshot().rules["partial_held_steps"] > 10
    engine, seen = run()
    assert [new for begun, new in seen if begun >= most and new] != []
    assert engine.snapshot().rules["partial_held_steps"] == 0


def test_at_most_one_a_step_passes_the_prefill_begun():
    """However many of lower key wait: the next one is chosen when its turn comes."""
    together = [TraceRequest(1.0, 60, 3, "a", "interactive") for _ in range(6)]
    engine, admitted = SimulatedEngine(ROOMY, SETTINGS), list[int]()
    limits = stock_limits(ROOMY, **RULES["serial"])
    engine.apply(decision(1, "edf", ttl_s=80_000.0, limits=limits))
    begun = [False]

    def watch(output) -> None:
        if begun[0]:
            admitted.append(len(output.scheduled_new_reqs))
        begun[0] = any(r.is_prefill_chunk for r in engine.scheduler.running)

    outcomes = engine.run([replace(DOCUMENT, arrival_s=0.9), *together], on_step=watch)
    assert all(o.finish == "stop" for o in outcomes)
    assert max(admitted) == 1
    assert admitted.count(1) == len(together)


# -- balance: a share for prefill --------------------------------------------------------


def test_a_prefill_near_its_deadline_gets_its_share_of_a_step_bound_by_slack():
    """Decodes so tight that their slack leaves prefill the least it may get."""
    classes = {"chat": SLO(ttft_ms=500, tpot_ms=10), "page": SLO(ttft_ms=800)}
    machine = profile(20_000, token_budget=2048)
    tight = EngineSettings(contract=with_classes(classes))
    chats = [TraceRequest(0.02 * i, 20, 80, "a", "chat") for i in range(200)]
    pages = [TraceRequest(0.5 + 0.6 * i, 6_000, 2, "b", "page") for i in range(5)]
    requests = sorted([*chats, *pages], key=lambda request: request.arrival_s)
    off, on = (
        under(requests, machine=machine, settings=tight, follow_slack=True, prefill_share=share)
        for share in (0.0, 0.6)
    )
    assert counts(off)["share_raised_steps"] == 0 < counts(on)["share_raised_steps"]
    assert counts(on)["slack_bound_steps"] > 0
    in_time = [
        sum(o.met for o in run.outcomes if o.slo_class == "page") for run in (off, on)
    ]  # fmt: skip
    assert in_time[0] < in_time[1]
    without = under(requests, machine=machine, settings=tight, prefill_share=0.6)
    assert counts(without)["share_raised_steps"] == 0, "nothing to raise where slack binds nothing"


# -- slack -------------------------------------------------------------------------------


def test_answers_do_not_miss_their_pace_by_a_hair():
    """Behind many tokens of a long prompt its next ones are dearer; so sized, steps fit."""
    classes = {"chat": SLO(ttft_ms=60_000, tpot_ms=25), "page": SLO(ttft_ms=600_000)}
    dear = replace(ROOMY, cost=replace(ROOMY.cost, per_square_s=20e-9), token_budget=2048)
    tight = EngineSettings(contract=with_classes(classes))
    chats = [TraceRequest(0.15 * i, 20 + i % 7, 5 + i % 40, "a", "chat") for i in range(400)]
    pages = [TraceRequest(2.0 * i, 12_000, 2, "b", "page") for i in range(30)]
    requests = sorted([*chats, *pages], key=lambda request: request.arrival_s)

    def misses(watch: Callable[[SimulatedEngine], None] = lambda engine: None) -> int:
        run = under(requests, machine=dear, settings=tight, follow_slack=True, watch=watch)
        assert counts(run)["slack_bound_steps"] > 0
        return sum(outcome.miss == "tpot" for outcome in run.outcomes)

    assert misses() <= 0.01 * len(chats)

    def blind(engine: SimulatedEngine) -> None:
        scheduler, schedule = engine.scheduler, engine.scheduler.schedule

        def blinded(*args, **kwargs):
            scheduler.queue.core.cost["per_square_s"] = 0.0
            return schedule(*args, **kwargs)

        scheduler.schedule = blinded

    assert misses(blind) > 0.05 * len(chats)


# -- tenant buckets ----------------------------------------------------------------------

BUCKETS = EngineSettings(bucket_s=1.0)


def flood(until_s: float = 20.0) -> list[TraceRequest]:
    """`hog` sends three times what the engine can prefill, `meek` a tenth of it."""
    hog = [TraceRequest(0.025 * i, 1500, 2, "hog", "interactive") for i in range(int(until_s * 40))]
    meek = [TraceRequest(0.2 * i, 400, 2, "meek", "interactive") for i in range(int(until_s * 5))]
    return sorted([*hog, *meek], key=lambda request: request.arrival_s)


def test_a_tenant_within_its_share_is_not_affected_by_one_beyond_it():
    requests = flood()
    met = {}
    for on in (False, True):
        run = under(requests, "fcfs", settings=BUCKETS, tenant_buckets=on)
        # The flood begins with what the bucket lends: a second of its share.
        meek = [o for o in run.outcomes if o.tenant == "meek" and o.arrival_s > 3.0]
        met[on] = sum(o.met for o in meek) / len(meek)
        assert (counts(run)["over_share"] > 0) == on
    assert met[False] < 0.3
    assert met[True] > 0.98


def test_idle_share_is_borrowable():
    """Alone, beyond any share: served as early as without the rule."""
    alone = [request for request in flood(5.0) if request.tenant == "hog"]
    off, on = (under(alone, "fcfs", settings=BUCKETS, tenant_buckets=f) for f in (False, True))
    assert on.outcomes[-1].finished_s == off.outcomes[-1].finished_s
    assert sorted(o.finished_s for o in on.outcomes) == sorted(o.finished_s for o in off.outcomes)


# -- hopeless requests -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "wanted", "demotes"),
    [("fcfs", None, False), ("fcfs", False, False), ("fcfs", True, True),
     ("edf", None, True), ("edf", False, False), ("edf", True, True)],
)  # fmt: skip
def test_hopeless_requests_are_demoted_as_the_limit_says(policy, wanted, demotes):
    requests = mixed_load(400, 90.0, seed=5, classes=("interactive", "conversational"))
    run = under(requests, policy, demote_hopeless=wanted)
    assert (counts(run)["demoted"] > 20) == demotes
    assert demotes or counts(run)["demoted"] == 0


@given(names=st.lists(st.sampled_from(list(RULES)), unique=True))
def test_the_rules_that_were_switched_on_are_those_in_force(names):
    assert set(rules_in_force(with_rules(STOCK, names))) == set(names)


def test_demotion_saves_those_that_can_still_be_saved():
    requests = mixed_load(400, 90.0, seed=5, classes=("interactive", "conversational"))
    kept, demoted = (
        sum(o.met for o in under(requests, "edf", demote_hopeless=flag).outcomes)
        for flag in (False, True)
    )
    assert demoted > kept * 1.2


def test_an_outcome_says_why_and_since_when_it_stood_behind_others():
    requests = mixed_load(400, 90.0, seed=5, classes=("interactive", "conversational"))
    few = mixed_load(40, 5.0, seed=5, classes=("interactive", "conversational"))
    calm = under(few, "edf", demote_hopeless=True, triage=True)
    assert not any(o.deprioritised for o in journal_of(calm.engine)[1])
    cases: list[tuple[dict[str, Any], str]] = [
        ({"triage": True, "demote_hopeless": False}, "parked"),
        ({"demote_hopeless": True}, "demoted"),
        ({"tenant_buckets": True, "demote_hopeless": False}, "over_share"),
    ]
    for limits, reason in cases:
        _, outcomes = journal_of(under(requests, "edf", **limits).engine)
        passed_over = [o for o in outcomes if o.deprioritised]
        assert passed_over
        for o in passed_over:
            ((why, after_s),) = o.deprioritised
            assert why == reason
            if not o.preemptions and o.queue_s is not None:
                assert 0.0 <= after_s <= o.queue_s, "only who waits stands behind others"
    under_fcfs = under(requests, "fcfs", demote_hopeless=False)
    assert not any(o.deprioritised for o in journal_of(under_fcfs.engine)[1])


# -- triage ------------------------------------------------------------------------------


def test_triage_saves_more_in_overload_and_changes_nothing_while_all_can_be_saved():
    for rate_rps, parks in ((10.0, False), (90.0, True)):
        requests = mixed_load(400, rate_rps, seed=5, classes=("interactive", "conversational"))
        off, on = (under(requests, "edf", triage=flag) for flag in (False, True))
        assert (counts(on)["parked"] > 20) == parks, counts(on)
        assert counts(off)["parked"] == 0
        met, saved = (sum(o.met for o in run.outcomes) for run in (off, on))
        assert saved > met * 1.05 if parks else on.outcomes == off.outcomes

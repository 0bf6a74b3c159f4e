"""Does each arm do what its name says, in the compiled engine?"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from evals.arms import RUN, run_case
from evals.arms.fixed import start_arm
from evals.arms.stock import deadline_ms, run_setting
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.contenders import ARMS
from evals.suite.tuned import StockSetting
from hmas_agents.config import ControlConfig
from hmas_agents.situation import Expected
from serving.contracts import SLO, Limits, TraceRequest
from serving.contracts.rules import with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from tests.evals.admission_oracle import AdmissionEngine
from tests.evals.samples import offered
from tests.evals.small_cases import MACHINE, TUNED, FakeSimulator, case, workload

STOCK = Limits(MACHINE.max_active_requests, MACHINE.token_budget)
SEARCHING = ("hindsight-switching", "clairvoyant")  # have tests of their own


def met(run):
    return sum(outcome.met for outcome in run.outcomes)


def simulate(arm, requests=None, **options):
    return run_case(case(arm, requests, **options))


ALLOWED = ("edf", "density", "slide", "srpt")


@pytest.fixture
def every_second(tmp_path: Path) -> ControllerOptions:
    """A controller whose long tick is a second: short workloads have several windows."""
    path = tmp_path / "hmas.toml"
    path.write_text(
        "[control]\nshort_tick_s = 0.5\nlong_tick_s = 1.0\nttl_s = 5.0\n"
        f"allow_policies = {list(ALLOWED)}\n"
    )
    return ControllerOptions(config_path=path)


def test_every_arm_has_a_line_and_a_function():
    assert {arm.kind for arm in ARMS.values()} == set(RUN)
    for name, arm in ARMS.items():
        assert parse_arm(name).name == name
        assert parse_arm(name).kind == arm.kind
        assert 4 < len(arm.about) < 90


@pytest.mark.parametrize("arm", [name for name in ARMS if name not in SEARCHING])
def test_an_arm_serves_every_request_and_repeats_itself(arm, every_second):
    requests = workload(24, 25.0)
    item = case(arm, requests, controller=every_second, seed=3)
    first, again = (run_case(item) for _ in range(2))
    assert first.arm == arm
    assert [o.request_id for o in first.outcomes] == [f"r{i}" for i in range(24)]
    assert [o.arrival_s for o in first.outcomes] == [r.arrival_s for r in requests]
    assert again == first


def test_a_case_of_a_loop_has_its_name_and_its_figures():
    run = run_case(case("rules-only", offered(0.0, 5.0)), lambda *_: FakeSimulator())
    assert (run.scenario, run.load, run.arm) == ("small", 1.5, "rules-only")
    assert (len(run.outcomes), run.preemptions, run.recomputed_tokens) == (2, 1, 70)


@pytest.mark.parametrize("arm", [name for name, arm in ARMS.items() if arm.tuned])
def test_an_arm_that_reads_what_was_tuned_says_so_where_nothing_was(arm):
    with pytest.raises(ValueError, match=f"{arm} seed 0: needs what `hmas eval tune` finds"):
        run_case(replace(case(arm), tuned=None))


# -- stock vLLM ----------------------------------------------------------------------------


def with_limit(requests, tokens):
    setting = StockSetting(token_budget=2048, max_num_seqs=32, max_num_queued_tokens=tokens)
    return run_setting(case("vllm-tuned", requests), setting)


def test_tuned_stock_is_stock_with_the_options_that_were_found():
    run = simulate("vllm-tuned")
    assert run.chosen == TUNED.stock.model_dump()
    assert run.decisions[0].limits == Limits(16, 512)
    same = replace(case("vllm-fcfs"), profile=replace(MACHINE, token_budget=512))
    assert run.outcomes != run_case(same).outcomes
    assert any(outcome.finish == "rejected" for outcome in run.outcomes)


def test_a_request_is_refused_once_the_queued_prompts_have_reached_the_limit():
    run = with_limit(offered(0.0, 0.0, 0.0, 0.0, 1.0), 250)  # 100 prompt tokens each
    assert [o.finish for o in run.outcomes] == ["stop", "stop", "stop", "rejected", "stop"]
    refused = run.outcomes[3]
    assert (refused.met, refused.miss, refused.ttft_s) == (False, "not_served", None)


def test_a_prompt_is_queued_until_its_first_token_is_out():
    # The only step of the first prompt lasts 15 ms; the second comes in its middle.
    run = with_limit(offered(0.0, 0.007, 0.1), 100)
    assert [o.finish for o in run.outcomes] == ["stop", "rejected", "stop"]


@pytest.mark.parametrize("limit", [300, 1000, 4000])
def test_requests_are_refused_as_beside_vllms_own_scheduler(limit):
    item = case("vllm-tuned", workload(200, 40.0))
    run = with_limit(item.requests, limit)
    oracle = AdmissionEngine(item.profile, item.settings, limit)
    assert run.outcomes == oracle.run(item.requests, until_s=item.span.until_s)
    refused = sum(o.finish == "rejected" for o in run.outcomes)
    assert 10 < refused < 190


def test_a_request_whose_only_token_came_after_another_arrived_was_queued_for_it():
    run = with_limit(offered(0.0, 0.007, prompt=100, output=1), 100)
    assert [o.finish for o in run.outcomes] == ["stop", "rejected"]


def test_the_priority_is_when_the_first_token_is_due():
    settings = EngineSettings()
    one = TraceRequest(2.0, 10, 10, slo=SLO(ttft_ms=300.0))
    assert deadline_ms(one, settings) == 2300
    assert deadline_ms(replace(one, slo=SLO(e2e_ms=900.0)), settings) == 2900
    assert deadline_ms(replace(one, slo=SLO()), settings) > 10**8
    crowded = simulate("vllm-priority-deadline")
    assert crowded.outcomes != simulate("vllm-fcfs").outcomes
    admitted = {o.request_id: o.arrival_s + o.queue_s for o in crowded.outcomes}
    due = {f"r{i}": deadline_ms(r, settings) for i, r in enumerate(workload(80, 25.0))}
    at_once = [names for names in _together(admitted) if len(names) > 1]
    assert at_once
    assert all(
        due[name] <= due[other]
        for names in at_once for name in names for other in due
        if admitted[other] > admitted[name] >= workload(80, 25.0)[int(other[1:])].arrival_s
    )  # fmt: skip


def _together(admitted):
    moments: dict[float, list[str]] = {}
    for name, at_s in admitted.items():
        moments.setdefault(at_s, []).append(name)
    return moments.values()


# -- SGLang, emulated ------------------------------------------------------------------------


def test_sglang_with_mixed_chunks_decodes_while_it_prefills():
    default, mixed = simulate("sglang-emulated"), simulate("sglang-mixed")
    assert default.outcomes != simulate("vllm-fcfs").outcomes
    slowest = [max(o.tpot_s or 0.0 for o in run.outcomes) for run in (default, mixed)]
    assert slowest[1] < slowest[0]


# -- our scheduler, one setting --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "policy", "params"),
    [("qoserve", "edf", {"kappa": 10.0}), ("vtc", "fair", {}), ("ssjf", "srpt", {"rho": 0.0})],
)
def test_an_order_from_the_literature_is_that_order_and_no_rule(arm, policy, params):
    engine = FakeSimulator()
    run_case(case(arm, offered(0.0, 5.0)), lambda *_: engine)
    assert [(d.policy, d.params, d.limits) for d in engine.applied] == [(policy, params, STOCK)]


def test_start_is_what_hmas_starts_with_and_the_best_fixed_what_was_tuned():
    control = ControlConfig()
    assert start_arm(case("start")) == "fixed-edf:kappa=3+slack+serial+triage"
    engine = FakeSimulator()
    run = run_case(case("start", offered(0.0, 5.0)), lambda *_: engine)
    assert engine.applied[0].limits == with_rules(STOCK, control.start_rules)
    assert (run.arm, run.chosen) == ("start", {"fixed": start_arm(case("start"))})
    assert simulate("best-fixed").outcomes == simulate(TUNED.best_fixed).outcomes
    assert simulate("best-fixed").chosen == {"fixed": TUNED.best_fixed}


def test_an_oracle_knows_lengths_from_the_first_request_on():
    item = case("oracle-lengths", workload(200, 30.0))
    told = run_case(item)
    start = start_arm(item)
    orders = {start, *(start_arm(item, policy) for policy in ("srpt", "density"))}
    assert told.chosen["fixed"] in orders
    assert met(told) >= met(run_case(replace(item, arm=parse_arm("start"))))
    order = replace(item, arm=parse_arm("fixed-srpt"))
    engine = CompiledEngine(item.profile, item.settings)
    engine.tell_lengths()
    build = lambda *_: engine  # noqa: E731
    assert run_case(order, build).outcomes != run_case(order).outcomes


# -- our scheduler without a thought ----------------------------------------------------


def test_random_switching_draws_by_seed_at_each_long_tick(every_second):
    requests = workload(60, 8.0)
    run = simulate("random-switching", requests, controller=every_second, seed=1)
    assert all(abs(d.at_s - round(d.at_s)) < 0.1 for d in run.decisions)
    assert len(run.decisions) > 5
    drawn = [d.policy for d in run.decisions]
    assert all(one != other for one, other in pairwise(drawn))
    assert len(set(drawn)) > 1
    assert set(drawn) <= set(ALLOWED)
    assert {d.limits for d in run.decisions} == {with_rules(STOCK, ["slack", "serial", "triage"])}
    other = simulate("random-switching", requests, controller=every_second, seed=2)
    assert [d.policy for d in other.decisions] != drawn


@pytest.fixture
def starting_badly(tmp_path: Path) -> ControllerOptions:
    """A controller that begins with a policy that overload punishes, and may leave it soon."""
    path = tmp_path / "hmas.toml"
    path.write_text(
        "[control]\nshort_tick_s = 0.5\nlong_tick_s = 2.0\nttl_s = 5.0\nfirst_tick_s = 1.0\n"
        'min_dwell_s = 1.0\nstart_policy = "fcfs"\n'
        'allow_policies = ["fcfs", "edf", "density", "slide"]\n[twin]\nhorizon_s = 5.0\n'
    )
    return ControllerOptions(config_path=path)


def test_a_threshold_and_a_tree_go_by_the_states(every_second):
    requests = workload(120, 25.0)
    for arm, leaves in (("threshold", {"edf", "sjf"}), ("tree", {"fcfs", "edf", "density"})):
        run = simulate(arm, requests, controller=every_second)
        assert {d.policy for d in run.decisions} <= leaves
        assert run.chosen["switches"] == len(run.decisions) - 1 > 0
    assert simulate("threshold", requests, controller=every_second).decisions[0].policy == "edf"


def test_announcements_reach_the_twin(starting_badly):
    requests = workload(240, 40.0)
    item = case("hmas-announced", requests, controller=starting_badly)
    unheard = run_case(item)
    assert unheard.outcomes == simulate("hmas", requests, controller=starting_badly).outcomes
    flood = Expected(10.0, 4.0, 9.0, tenant="b")
    told = run_case(replace(item, expected=(flood,)))
    assert [d.reason for d in told.decisions] != [d.reason for d in unheard.decisions]
    # What has come is in what was seen lately: to expect it once more would be too much.
    passed = replace(flood, from_s=0.1, until_s=None)
    assert run_case(replace(item, expected=(passed,))).decisions == unheard.decisions


def test_rules_only_switches_by_the_rule_table_and_the_twin_without_it(starting_badly):
    requests = workload(240, 40.0)
    rules, twin = (
        simulate(arm, requests, controller=starting_badly) for arm in ("rules-only", "twin-only")
    )
    assert rules.decisions[0].policy == twin.decisions[0].policy == "fcfs"
    assert rules.decisions[-1].policy != "fcfs"
    assert twin.decisions[-1].policy != "fcfs"
    assert any("twin predicts" in d.reason for d in twin.decisions)
    assert not any("twin predicts" in d.reason for d in rules.decisions)
    assert met(twin) > met(simulate("fixed-fcfs+slack", requests))


def test_a_loop_that_advises_leaves_the_engine_as_it_was(starting_badly):
    advised = simulate("hmas-advise", workload(80, 25.0), controller=starting_badly)
    assert advised.decisions == []
    alone = simulate("fixed-fcfs", workload(80, 25.0)).outcomes
    assert advised.outcomes == [replace(outcome, epoch=0) for outcome in alone]


def test_arms_with_a_loop_tick_with_the_short_horizon_and_give_the_engine_back():
    engine = FakeSimulator()
    run_case(case("rules-only", offered(0.0, 5.0)), lambda *_: engine)
    assert engine.ran[0][1] == [ControlConfig().short_tick_s]
    assert engine.owner == ""  # closed: the lease is given back

"""Does each baseline do what its name says, on vLLM's scheduler in virtual time?"""

from dataclasses import replace
from pathlib import Path

import pytest

from evals.arms import RUN, run_case
from evals.arms.admission import QUEUED_S, queued_tokens, run_with_limit
from evals.arms.best_run import best_run
from evals.arms.engine import build_simulated
from evals.arms.tuned import fewer_sequences, run_stock, token_budgets
from evals.result.metrics import CaseRun
from evals.suite.arms import BASELINES, ControllerOptions, parse_arm
from hmas_agents.config import ControlConfig
from serving.contracts import Limits
from serving.contracts.rules import with_rules
from tests.evals.admission_oracle import AdmissionEngine
from tests.evals.samples import offered, outcome
from tests.evals.small_cases import MACHINE, FakeSimulator, case, workload

STOCK = Limits(MACHINE.max_active_requests, MACHINE.token_budget)


def met(run):
    return sum(outcome.met for outcome in run.outcomes)


def simulate(arm, requests=None, **options):
    return run_case(case(arm, requests, **options))


@pytest.fixture
def every_second(tmp_path: Path) -> ControllerOptions:
    """A controller whose long tick is a second: short workloads have several windows."""
    path = tmp_path / "hmas.toml"
    path.write_text("[control]\nshort_tick_s = 0.5\nlong_tick_s = 1.0\nttl_s = 5.0\n")
    return ControllerOptions(config_path=path)


def test_every_baseline_has_a_name_and_a_run():
    assert {*RUN, "hindsight-fixed"} == set(BASELINES)  # that one is found, not run
    for name in BASELINES:
        assert (parse_arm(name).name, parse_arm(name).kind) == (name, "baseline")


@pytest.mark.parametrize("arm", RUN)
def test_a_baseline_serves_every_request_and_repeats_itself(arm, every_second):
    requests = workload(24, 25.0)
    item = replace(
        case(arm, requests, controller=every_second, seed=3),
        shortlist=("fixed-edf+slack", "fixed-sjf+rules"),
    )
    first, again = (run_case(item) for _ in range(2))
    assert [o.request_id for o in first.outcomes] == [f"r{i}" for i in range(24)]
    assert [o.arrival_s for o in first.outcomes] == [r.arrival_s for r in requests]
    assert again == first


def test_a_case_of_a_baseline_has_its_name_and_its_figures():
    run = run_case(case("rules-only", offered(0.0, 5.0)), lambda *_: FakeSimulator())
    assert (run.scenario, run.load, run.arm) == ("small", 1.5, "rules-only")
    assert (len(run.outcomes), run.preemptions, run.recomputed_tokens) == (2, 1, 70)


# -- stock vLLM, tuned ------------------------------------------------------------------


def test_tuning_is_the_best_of_its_list_and_better_than_stock_here():
    tuned = simulate("vllm-tuned")
    by_budget = {}
    for budget in token_budgets(MACHINE):
        by_budget[budget] = met(with_limits(32, budget))
    assert tuned.chosen["token_budget"] == max(by_budget, key=lambda budget: by_budget[budget])
    assert met(tuned) >= max(by_budget.values())
    assert met(tuned) > by_budget[MACHINE.token_budget]
    again = with_limits(tuned.chosen["max_num_seqs"], tuned.chosen["token_budget"])
    assert again.outcomes == tuned.outcomes
    limits = tuned.decisions[0].limits
    assert (limits.token_budget, limits.max_active_requests) == tuple(tuned.chosen.values())


def with_limits(sequences, budget) -> CaseRun:
    machine = replace(MACHINE, max_active_requests=sequences, token_budget=budget)
    return run_stock(case("vllm-tuned"), machine, build_simulated)


def test_the_lists_begin_with_the_profile_and_keep_to_what_vllm_starts_with():
    assert token_budgets(MACHINE) == [2048, 256, 512, 1024, 4096]
    assert fewer_sequences(MACHINE) == [16]
    assert min(token_budgets(MACHINE)) >= MACHINE.max_active_requests


# -- stock vLLM, admission --------------------------------------------------------------


def test_a_request_is_refused_once_the_queued_prompts_have_reached_the_limit():
    at_once = offered(0.0, 0.0, 0.0, 0.0, 1.0)  # 100 prompt tokens each
    run = run_with_limit(case("vllm-admission", at_once), 250)
    assert [o.finish for o in run.outcomes] == ["stop", "stop", "stop", "rejected", "stop"]
    refused = run.outcomes[3]
    assert (refused.met, refused.miss, refused.ttft_s) == (False, "not_served", None)


def test_a_prompt_is_queued_until_its_first_token_is_out():
    # The only step of the first prompt lasts 15 ms; the second comes in its middle.
    run = run_with_limit(case("vllm-admission", offered(0.0, 0.007, 0.1)), 100)
    assert [o.finish for o in run.outcomes] == ["stop", "rejected", "stop"]


@pytest.mark.parametrize("limit", [300, 1000, 4000])
def test_requests_are_refused_as_beside_vllms_own_scheduler(limit):
    item = case("vllm-admission", workload(200, 40.0))
    run = run_with_limit(item, limit)
    oracle = AdmissionEngine(item.profile, item.settings, limit)
    assert run.outcomes == oracle.run(item.requests, until_s=item.until_s)
    refused = sum(o.finish == "rejected" for o in run.outcomes)
    assert 10 < refused < 190


def test_a_request_whose_only_token_came_after_another_arrived_was_queued_for_it():
    requests = offered(0.0, 0.007, prompt=100, output=1)
    run = run_with_limit(case("vllm-admission", requests), 100)
    assert [o.finish for o in run.outcomes] == ["stop", "rejected"]


def test_admission_takes_the_limit_that_pays_and_none_where_none_does():
    crowded = simulate("vllm-admission")
    assert crowded.chosen["max_num_queued_tokens"] in {queued_tokens(MACHINE, s) for s in QUEUED_S}
    assert any(o.finish == "rejected" for o in crowded.outcomes)
    assert met(crowded) > met(simulate("vllm-fcfs"))
    calm = simulate("vllm-admission", workload(20, 1.0))
    assert calm.chosen == {"max_num_queued_tokens": "none"}
    assert calm.outcomes == simulate("vllm-fcfs", workload(20, 1.0)).outcomes


def test_a_limit_is_a_time_of_full_prefill_steps():
    assert queued_tokens(MACHINE, 2.0) == round(2.0 * 2048 / (5e-3 + 2048 * 100e-6))


# -- SGLang, emulated -------------------------------------------------------------------


def test_sglang_is_the_emulation_and_tuning_it_never_loses():
    default, tuned = simulate("sglang-emulated"), simulate("sglang-emulated-tuned")
    assert default.outcomes != simulate("vllm-fcfs").outcomes
    assert met(tuned) >= met(default)
    assert "chunked_prefill_size" in tuned.chosen


# -- our scheduler without a thought ----------------------------------------------------


def test_random_switching_draws_by_seed_at_each_long_tick(every_second):
    requests = workload(60, 8.0)
    run = simulate("random-switching", requests, controller=every_second, seed=1)
    assert [round(d.at_s) for d in run.decisions] == list(range(len(run.decisions)))
    assert len(run.decisions) > 5
    drawn = [d.policy for d in run.decisions]
    assert 1 < len(set(drawn)) <= len(ControlConfig().allow_policies)
    assert set(drawn) <= set(ControlConfig().allow_policies)
    assert {d.limits for d in run.decisions} == {with_rules(STOCK, ["slack", "serial", "triage"])}
    other = simulate("random-switching", requests, controller=every_second, seed=2)
    assert [d.policy for d in other.decisions] != drawn


@pytest.fixture
def starting_badly(tmp_path: Path) -> ControllerOptions:
    """A controller that begins with a policy that overload punishes, and may leave it soon."""
    path = tmp_path / "hmas.toml"
    path.write_text(
        '[control]\nshort_tick_s = 0.5\nlong_tick_s = 2.0\nttl_s = 5.0\nfirst_tick_s = 1.0\n'
        'min_dwell_s = 1.0\nstart_policy = "fcfs"\n'
        'allow_policies = ["fcfs", "edf", "density", "slide"]\n[twin]\nhorizon_s = 5.0\n'
    )
    return ControllerOptions(config_path=path)


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


# -- choosing among runs ----------------------------------------------------------------


def test_the_best_run_met_most_and_of_equals_comes_first():
    numbers = {"a": 1, "b": 3, "c": 3}
    item = case("vllm-tuned", offered(0.0, 1.0))
    runs = {k: item.ran([outcome(met=i < n) for i in range(4)]) for k, n in numbers.items()}
    assert best_run(item, list(runs), runs.__getitem__) == ("b", runs["b"])


def test_what_arrives_in_the_warm_up_does_not_count_for_a_choice():
    item = replace(case("vllm-tuned", offered(5.0, 20.0)), warmup_s=10.0)
    early = item.ran([outcome(arrival_s=5.0), outcome(arrival_s=20.0, met=False)])
    late = item.ran([outcome(arrival_s=5.0, met=False), outcome(arrival_s=20.0)])
    runs = {"early": early, "late": late}
    assert best_run(item, list(runs), runs.__getitem__) == ("late", late)

"""Is what arms learn the best of the development half, and of that half only?"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.arms import run_case
from evals.arms.stock import run_setting
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.requests.scenario import build_workloads
from evals.sim.suite_run import RunOptions
from evals.sim.tune import (
    NO_LIMIT,
    as_options,
    first_grid,
    for_tuning,
    tune,
    tune_stock,
    tuned_on,
    widened,
    worths_of_settings,
)
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import load_suite
from evals.suite.tuned import StockSetting
from tests.evals.in_process import InProcess
from tests.evals.small_cases import MACHINE, case, workload

SMOKE = Path("evals/suites/smoke.toml")
INF = float("inf")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("tune") / "hmas.toml"
    path.write_text("[control]\nshort_tick_s = 0.5\nlong_tick_s = 1.0\nttl_s = 5.0\n")
    controller = ControllerOptions(config_path=path)
    cases = [case("vllm-fcfs", workload(80, rate, seed), controller=controller, seed=seed)
             for rate in (15.0, 30.0) for seed in (1, 2)]  # fmt: skip
    workers: Any = InProcess()
    return cases, tuned_on(workers, cases)


def mean(cases, run):
    return sum(one.share_met(run(one)) for one in cases) / len(cases)


def test_what_is_found_is_worth_what_it_says_and_no_less_than_what_it_is_chosen_from(found):
    cases, tuned = found
    assert tuned.met["vllm-tuned"] == pytest.approx(
        mean(cases, lambda one: run_setting(one, tuned.stock))
    )
    assert tuned.met["vllm-tuned"] >= mean(cases, run_case)
    for name in ("best-fixed", "threshold", "tree"):
        arm = parse_arm(name)
        share = mean(cases, lambda one, arm=arm: run_case(replace(one, arm=arm, tuned=tuned)))
        assert tuned.met[name] == pytest.approx(share)
    start = mean(cases, lambda one: run_case(replace(one, arm=parse_arm("start"))))
    assert tuned.met["best-fixed"] >= start


def test_options_are_tuned_jointly_and_beyond_the_first_grid_where_that_pays():
    asked = []

    def worths(settings):
        asked.extend(settings)
        # Best: half the least budget of the first grid, a quarter of its sequences, all let in.
        return [
            [-abs(s.token_budget - 256) - 10 * abs(s.max_num_seqs - 8) - s.max_num_queued_tokens
             for s in settings]
        ]  # fmt: skip

    best, limits, worth = tune_stock(MACHINE, worths)
    assert best == StockSetting(token_budget=256, max_num_seqs=8, max_num_queued_tokens=NO_LIMIT)
    assert worth == 0
    assert limits["max_num_queued_tokens"] == "no limit: all are let in"
    assert limits["max_num_seqs"].startswith("inside")
    assert len(asked) == len(set(asked))
    assert all(s.token_budget >= s.max_num_seqs for s in asked)


def test_a_grid_is_widened_at_edges_that_are_no_limit_only():
    grid = first_grid(MACHINE)
    inside = (grid[0][1], grid[1][1], grid[2][1])
    assert widened(grid, inside) == grid
    most = (grid[0][1], MACHINE.max_active_requests, INF)
    assert widened(grid, most) == grid
    edge = widened(grid, (grid[0][-1], grid[1][0], grid[2][0]))
    assert edge[0][-1] == 2 * grid[0][-1]
    assert (edge[1][0], edge[2][0]) == (grid[1][0] // 2, grid[2][0] / 2)


def test_a_limit_is_a_time_of_full_prefill_steps_and_columns_count_as_runs_do():
    setting = as_options(MACHINE, (2048, 32, 2.0))
    assert setting.max_num_queued_tokens == round(2.0 * 2048 / (5e-3 + 2048 * 100e-6))
    item = case("vllm-tuned")
    settings = (setting, as_options(MACHINE, (512, 16, INF)))
    assert worths_of_settings((item, settings)) == [
        item.share_met(run_setting(item, each)) for each in settings
    ]


def test_the_suite_is_put_on_its_development_half_whatever_half_it_reports_on():
    suite = load_suite(SMOKE).model_copy(update={"half": "test"})
    tuning = for_tuning(suite, 3)
    assert (tuning.half, tuning.every_seed) == ("development", (0, 1, 2))
    longest = dict.fromkeys(tuning.profiles, 16384)
    ours, theirs = (build_workloads(one, None, longest, print) for one in (tuning, suite))
    assert {each.half for each in ours} == {"development"}
    assert list(ours[0].requests) != list(theirs[0].requests)


def test_workloads_of_the_test_half_are_refused():
    suite = load_suite(SMOKE)
    tuning = for_tuning(suite, 1)
    longest = dict.fromkeys(tuning.profiles, 16384)
    workloads: list[Workload] = build_workloads(suite, None, longest, print)
    options = RunOptions(1, ControllerOptions())
    with CaseProgress() as progress, pytest.raises(ValueError, match="not of the half 'develop"):
        tune(tuning, workloads, {}, options, progress)

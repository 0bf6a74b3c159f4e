"""Does hindsight find the best, and do copies of the process stay copies?"""

import os
from dataclasses import dataclass, replace

import pytest

from evals.arms import parse_arm
from evals.baselines.fixed import CANDIDATES
from evals.baselines.hindsight_switching import run_greedy
from evals.baselines.rollouts import Rollouts
from evals.sim_engine import build_simulated
from evals.simulated_case import run_arm
from serving.contracts import TenantCounters
from serving.policies import POLICIES
from tests.evals.samples import offered, outcome
from tests.evals.small_cases import FakeSimulator, case, workload

# Requests met in each window of 60 s under the policy that is then in force.
WINDOWS = {"edf": [9, 2, 1, 9], "sjf": [1, 9, 9, 1], "fcfs": [0, 0, 0, 0]}


def quiet(_: int) -> None:
    pass


def met(run):
    return sum(outcome.met for outcome in run.outcomes)


@dataclass
class Windowed(FakeSimulator):
    """Meets as many requests per window as WINDOWS says; the rest is nobody's."""

    met: int = 0

    def snapshot(self):
        return replace(super().snapshot(), counters=(TenantCounters("a", "batch", met=self.met),))

    def run(self, requests, tickers=(), until_s=None, on_progress=None):
        ((period_s, tick),) = tickers
        for window in range(4):
            self.now_s = window * period_s
            if window:
                tick()
            self.met += WINDOWS.get(self.policy, [0] * 4)[window]
            on_progress(10 * (window + 1))
        return [outcome(i, met=i < self.met) for i in range(40)]


def test_greedy_switching_takes_what_pays_most_by_the_end_of_the_next_window():
    said: list[int] = []
    run = run_greedy(
        case("hindsight-switching"),
        ["fixed-edf+slack", "fixed-sjf+rules"],
        said.append,
        lambda *_: Windowed(),
    )
    # edf against sjf: 11 to 10; 3 to 18; 10 to 10, so the one in force stays; 9 to 1.
    assert [d.policy for d in run.decisions] == ["edf", "sjf", "edf"]
    assert [d.limits.tenant_buckets for d in run.decisions] == [False, True, False]
    assert [d.at_s for d in run.decisions] == [0.0, 60.0, 180.0]
    assert met(run) == 36
    assert run.chosen == {"shortlist": "fixed-edf+slack, fixed-sjf+rules", "switches": 2}
    assert said == [10, 20, 30, 40]  # copies report nothing


def test_hindsight_switching_is_the_better_of_switching_and_the_best_fixed_policy():
    def best(arm):
        item = case(arm, offered(0.0, 240.0))
        return run_arm(item, quiet, lambda *_: Windowed())

    assert best("hindsight-fixed").chosen == {"fixed": "fixed-edf+slack"}
    assert met(best("hindsight-fixed")) == 21
    assert met(best("hindsight-switching")) == 36


def test_hindsight_fixed_is_the_best_of_every_policy_with_slack_and_with_all_rules():
    assert len(CANDIDATES) == 2 * len(POLICIES)
    requests = workload(50, 25.0)
    best = run_arm(case("hindsight-fixed", requests), quiet, build_simulated)
    figures = {
        name: met(run_arm(case(name, requests), quiet, build_simulated)) for name in CANDIDATES
    }
    assert met(best) == max(figures.values()) == figures[str(best.chosen["fixed"])]
    assert [d.policy for d in best.decisions] == [parse_arm(str(best.chosen["fixed"])).policy]


def test_rollouts_on_vllms_scheduler_foretell_what_the_run_comes_to():
    """All is over within the first window, so the one choice is that of the best fixed arm."""
    requests = workload(60, 20.0)
    names = ["fixed-fcfs+rules", "fixed-sjf+rules", "fixed-density+slack"]
    fixed = [run_arm(case(name, requests), quiet, build_simulated) for name in names]
    greedy = run_greedy(case("hindsight-switching", requests), names, quiet, build_simulated)
    assert len({met(run) for run in fixed}) > 1
    best = max(fixed, key=met)
    assert greedy.outcomes == best.outcomes
    assert [d.limits for d in greedy.decisions] == [best.decisions[0].limits]


def test_a_copy_that_fails_is_an_error_of_the_run():
    rollouts = Rollouts(lambda: 0.0, lambda: 1)

    def fail(choice):
        raise LookupError(f"no {choice}")

    here = os.getpid()
    failed = r"rollout of 'edf' failed: [^$]*LookupError: no edf"
    with pytest.raises(RuntimeError, match=failed), rollouts.around_run():
        rollouts.try_each(["edf"], fail, 10.0)
    assert os.getpid() == here
    assert not rollouts.in_copy

"""Does hindsight find the best, and do copies of the process stay copies?"""

import os
from dataclasses import dataclass, replace

import pytest

from evals.baselines import run_arm
from evals.baselines.rollouts import Rollouts
from evals.case_store import FinishedCase
from evals.hindsight import (
    CANDIDATES,
    RULE_SETS,
    candidate_names,
    candidates_of,
    conclude,
    switching_of,
)
from evals.jobs import Job
from evals.metrics import CaseRun
from evals.sim_engine import build_simulated
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
    item = replace(case("hindsight-switching"), shortlist=("fixed-edf+slack", "fixed-sjf+rules"))
    run = run_arm(item, said.append, lambda *_: Windowed())
    # edf against sjf: 11 to 10; 3 to 18; 10 to 10, so the one in force stays; 9 to 1.
    assert [d.policy for d in run.decisions] == ["edf", "sjf", "edf"]
    assert [d.limits.tenant_buckets for d in run.decisions] == [False, True, False]
    assert [d.at_s for d in run.decisions] == [0.0, 60.0, 180.0]
    assert met(run) == 36
    assert run.chosen == {"shortlist": "fixed-edf+slack, fixed-sjf+rules", "switches": 2}
    assert said == [10, 20, 30, 40]  # copies report nothing


def job(arm, seed=0):
    return Job(case(arm, offered(0.0, 1.0), seed=seed), "trace", 1.0, 0.0, (), keep_outcomes=True)


def finished(of, goodput_rps):
    result = {"arm": of.case.arm.name, "goodput_rps": goodput_rps, "chosen": {}}
    return FinishedCase(result, CaseRun("small", 1.5, of.case.arm.name, [], []))


def with_goodput(seed=0, **goodput_rps):
    """Every candidate done, those named with their goodput and the others with none."""
    jobs = candidates_of([job("hindsight-fixed", seed)], CANDIDATES)
    return {each.id: finished(each, goodput_rps.get(each.case.arm.name, 0.0)) for each in jobs}


BEST = {"fixed-sjf+rules": 5.0, "fixed-edf+slack": 9.0, "fixed-edf": 9.0, "fixed-mlfq": 7.0}


def test_every_policy_is_a_candidate_under_each_set_of_rules_once_per_seed():
    asking = [job(arm, seed) for arm in ("hindsight-fixed", "hindsight-switching")
              for seed in (1, 2)]  # fmt: skip
    candidates = candidates_of([*asking, job("hmas")], CANDIDATES)
    assert len(candidates) == 2 * len(RULE_SETS) * len(POLICIES)
    assert len({each.id for each in candidates}) == len(candidates)
    assert "fixed-edf+slack+serial" in CANDIDATES
    assert {each.case.seed for each in candidates} == {1, 2}
    assert not any(each.keep_outcomes for each in candidates)
    assert candidates_of([job("hmas")], CANDIDATES) == []


def test_a_suite_with_fixed_arms_is_searched_among_them_and_another_among_all():
    assert candidate_names([job("hindsight-fixed"), job("hmas")]) == CANDIDATES
    mine = [job("fixed-sjf+rules"), job("vllm-fcfs"), job("fixed-edf"), job("fixed-edf", 2)]
    assert candidate_names([job("hindsight-fixed"), *mine]) == ("fixed-sjf+rules", "fixed-edf")


def test_arms_with_parameters_are_candidates_and_on_the_shortlist_as_any_other():
    names = ("fixed-sjf:kappa=40+slack+serial", "fixed-sjf+slack+serial", "fixed-slide:kappa=5")
    asked = [job("hindsight-fixed"), job("hindsight-switching"), *(job(name) for name in names)]
    assert candidate_names(asked) == names
    done = {
        each.id: finished(each, goodput_rps)
        for each, goodput_rps in zip(candidates_of(asked, names), (3.0, 1.0, 2.0), strict=True)
    }
    (switching,) = switching_of(asked, names, done)
    assert switching.case.shortlist == (names[0], names[2], names[1])
    assert conclude(asked[0], names, done).result["chosen"] == {"fixed": names[0]}


def test_hindsight_fixed_is_the_best_candidate_under_its_own_name_of_equals_the_simpler():
    best = conclude(job("hindsight-fixed"), CANDIDATES, with_goodput(**BEST))
    assert best.result == {
        "arm": "hindsight-fixed", "goodput_rps": 9.0, "chosen": {"fixed": "fixed-edf"}
    }  # fmt: skip
    assert (best.run.arm, best.run.chosen) == ("hindsight-fixed", {"fixed": "fixed-edf"})


def test_a_seed_has_a_best_of_its_own():
    done = with_goodput(seed=1, **BEST) | with_goodput(seed=2, **{"fixed-fair": 1.0})
    best = conclude(job("hindsight-fixed", 2), CANDIDATES, done)
    assert best.result["chosen"] == {"fixed": "fixed-fair"}


def test_switching_gets_the_three_best_candidates():
    asked = [job("hindsight-fixed"), job("hindsight-switching"), job("hmas")]
    (switching,) = switching_of(asked, CANDIDATES, with_goodput(**BEST))
    assert switching.case.shortlist == ("fixed-edf", "fixed-edf+slack", "fixed-mlfq")
    assert switching.id == job("hindsight-switching").id


@pytest.mark.parametrize(("switched_rps", "comes_to"), [(9.5, 9.5), (9.0, 9.0), (2.0, 9.0)])
def test_hindsight_switching_is_the_better_of_switching_and_staying(switched_rps, comes_to):
    asked = job("hindsight-switching")
    done = with_goodput(**BEST) | {asked.id: finished(asked, switched_rps)}
    best = conclude(asked, CANDIDATES, done)
    assert best.result["goodput_rps"] == comes_to
    assert best.result["arm"] == "hindsight-switching"
    assert bool(best.result["chosen"]) == (switched_rps <= 9.0)  # stayed: with what


def test_rollouts_on_vllms_scheduler_foretell_what_the_run_comes_to():
    """All is over within the first window, so the one choice is that of the best fixed arm."""
    requests = workload(60, 20.0)
    names = ["fixed-fcfs+rules", "fixed-sjf+rules", "fixed-density+slack"]
    fixed = [run_arm(case(name, requests), quiet, build_simulated) for name in names]
    item = replace(case("hindsight-switching", requests), shortlist=tuple(names))
    greedy = run_arm(item, quiet, build_simulated)
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

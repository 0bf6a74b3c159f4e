"""Does hindsight find the best?"""

from dataclasses import dataclass, replace

import pytest

from evals.arms import run_case
from evals.result.metrics import CaseRun
from evals.sim.hindsight import (
    CANDIDATES,
    RULE_SETS,
    candidate_names,
    candidates_of,
    conclude,
    switching_of,
)
from evals.sim.jobs import FinishedCase
from serving.policies import POLICIES
from tests.evals.samples import offered, outcome
from tests.evals.small_cases import FakeSimulator, case, workload

# Requests met in each window of 60 s under the policy that is then in force.
WINDOWS = {"edf": [9, 2, 1, 9], "sjf": [1, 9, 9, 1], "fcfs": [0, 0, 0, 0]}


def met(run):
    return sum(outcome.met for outcome in run.outcomes)


@dataclass
class Windowed(FakeSimulator):
    """Meets as many requests per window as WINDOWS says, until it is told to end."""

    def run(self, requests, tickers=(), until_s=None):
        ((period_s, tick),) = tickers
        met = 0
        for window in range(round(until_s / period_s)):
            self.now_s = window * period_s
            if window:
                tick()
            met += WINDOWS[self.policy][window]
        return [outcome(i, met=i < met) for i in range(40)]


def test_greedy_switching_takes_what_pays_most_by_the_end_of_the_next_window():
    requests = offered(0.0, 180.0)  # and 60 s to drain: four windows
    names = ("fixed-edf+slack", "fixed-sjf+rules")
    item = replace(case("hindsight-switching", requests), shortlist=names)
    run = run_case(item, lambda *_: Windowed())
    # edf against sjf: 11 to 10; 3 to 18; 10 to 10, so the one in force stays; 9 to 1.
    assert [d.policy for d in run.decisions] == ["edf", "sjf", "edf"]
    assert [d.limits.tenant_buckets for d in run.decisions] == [False, True, False]
    assert [d.at_s for d in run.decisions] == [0.0, 60.0, 180.0]
    assert met(run) == 36
    assert run.chosen == {"shortlist": "fixed-edf+slack, fixed-sjf+rules", "switches": 2}


def job(arm, seed=0):
    return case(arm, offered(0.0, 1.0), seed=seed)


def finished(of, goodput_rps):
    result = {"arm": of.arm.name, "goodput_rps": goodput_rps, "chosen": {}}
    return FinishedCase(result, CaseRun("small", 1.5, of.arm.name, [], []))


def with_goodput(seed=0, **goodput_rps):
    """Every candidate done, those named with their goodput and the others with none."""
    jobs = candidates_of([job("hindsight-fixed", seed)], CANDIDATES)
    return {each.id: finished(each, goodput_rps.get(each.arm.name, 0.0)) for each in jobs}


BEST = {"fixed-sjf+rules": 5.0, "fixed-edf+slack": 9.0, "fixed-edf": 9.0, "fixed-mlfq": 7.0}


def test_every_policy_is_a_candidate_under_each_set_of_rules_once_per_seed():
    asking = [job(arm, seed) for arm in ("hindsight-fixed", "hindsight-switching")
              for seed in (1, 2)]  # fmt: skip
    candidates = candidates_of([*asking, job("hmas")], CANDIDATES)
    assert len(candidates) == 2 * len(RULE_SETS) * len(POLICIES)
    assert len({each.id for each in candidates}) == len(candidates)
    assert "fixed-edf+slack+serial" in CANDIDATES
    assert {each.seed for each in candidates} == {1, 2}
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
    assert switching.shortlist == (names[0], names[2], names[1])
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
    assert switching.shortlist == ("fixed-edf", "fixed-edf+slack", "fixed-mlfq")
    assert switching.id == job("hindsight-switching").id


@pytest.mark.parametrize(("switched_rps", "comes_to"), [(9.5, 9.5), (9.0, 9.0), (2.0, 9.0)])
def test_hindsight_switching_is_the_better_of_switching_and_staying(switched_rps, comes_to):
    asked = job("hindsight-switching")
    done = with_goodput(**BEST) | {asked.id: finished(asked, switched_rps)}
    best = conclude(asked, CANDIDATES, done)
    assert best.result["goodput_rps"] == comes_to
    assert best.result["arm"] == "hindsight-switching"
    assert bool(best.result["chosen"]) == (switched_rps <= 9.0)  # stayed: with what


def test_where_all_is_over_in_the_first_window_it_is_the_best_fixed_arm():
    requests = workload(60, 20.0)
    names = ["fixed-fcfs+rules", "fixed-sjf+rules", "fixed-density+slack"]
    fixed = [run_case(case(name, requests)) for name in names]
    greedy = run_case(replace(case("hindsight-switching", requests), shortlist=tuple(names)))
    assert len({met(run) for run in fixed}) > 1
    best = max(fixed, key=met)
    assert greedy.outcomes == best.outcomes
    assert [d.limits for d in greedy.decisions] == [best.decisions[0].limits]

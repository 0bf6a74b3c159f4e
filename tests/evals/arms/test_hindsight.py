"""Does hindsight find the best?"""

from dataclasses import dataclass

import pytest

from evals.arms import hindsight, run_case
from evals.arms.engine import build_simulated
from evals.arms.fixed import FIXED_ARMS
from evals.arms.hindsight import rank_fixed, switch_greedily
from evals.suite.arms import parse_arm
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
    requests = offered(0.0, 180.0)  # of 240 s: four windows
    item = case("hindsight-switching", requests)
    names = ("fixed-edf+slack", "fixed-sjf+rules")
    run = switch_greedily(item, names, lambda *_: Windowed())
    # edf against sjf: 11 to 10; 3 to 18; 10 to 10, so the one in force stays; 9 to 1.
    assert [d.policy for d in run.decisions] == ["edf", "sjf", "edf"]
    assert [d.limits.tenant_buckets for d in run.decisions] == [False, True, False]
    assert [d.at_s for d in run.decisions] == [0.0, 60.0, 180.0]
    assert met(run) == 36
    assert run.chosen == {"shortlist": "fixed-edf+slack, fixed-sjf+rules", "switches": 2}


def test_candidates_differ_and_are_fixed_arms():
    assert len(FIXED_ARMS) == len(set(FIXED_ARMS))
    assert all(parse_arm(name).policy for name in FIXED_ARMS)


def test_the_best_candidate_is_found_and_of_equals_the_simpler():
    item = case("hindsight-fixed")
    ranked, best = rank_fixed(item, build_simulated)
    runs = {name: met(run_case(case(name))) for name in FIXED_ARMS}
    most = max(runs.values())
    assert ranked[0] == next(name for name in FIXED_ARMS if runs[name] == most)
    assert [runs[name] for name in ranked] == sorted(runs.values(), reverse=True)
    run = run_case(item)
    assert (run.arm, run.chosen, met(run)) == ("hindsight-fixed", {"fixed": ranked[0]}, most)
    assert run.outcomes == best.outcomes


@pytest.mark.parametrize(("switched", "comes_to"), [(99, 99), (1, 9)])
def test_hindsight_switching_is_the_better_of_switching_and_staying(
    switched, comes_to, monkeypatch
):
    item = case("hindsight-switching", offered(0.0, 1.0))

    def ran(count):
        return item.ran([outcome(i, met=i < count) for i in range(100)])

    monkeypatch.setattr(hindsight, "rank_fixed", lambda *_: (("fixed-edf",) * 3, ran(9)))
    monkeypatch.setattr(hindsight, "switch_greedily", lambda *_: ran(switched))
    run = run_case(item)
    assert (run.arm, met(run)) == ("hindsight-switching", comes_to)


def test_where_all_is_over_in_the_first_window_it_is_the_best_fixed_arm():
    requests = workload(60, 20.0)
    names = ("fixed-fcfs+rules", "fixed-sjf+rules", "fixed-density+slack")
    fixed = [run_case(case(name, requests)) for name in names]
    greedy = switch_greedily(case("hindsight-switching", requests), names, build_simulated)
    assert len({met(run) for run in fixed}) > 1
    best = max(fixed, key=met)
    assert greedy.outcomes == best.outcomes
    assert [d.limits for d in greedy.decisions] == [best.decisions[0].limits]

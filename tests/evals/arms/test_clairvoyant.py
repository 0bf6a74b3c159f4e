"""Is the clairvoyant search never below what it begins with, nor above the bound?"""

from dataclasses import replace

import pytest

from evals.arms import clairvoyant, run_case
from evals.arms.clairvoyant import starts
from evals.sim.bound import upper_bound
from evals.suite.arms import parse_arm
from tests.evals.small_cases import case, workload


def met(run):
    return sum(outcome.met for outcome in run.outcomes)


@pytest.fixture(scope="module")
def searched():
    requests = workload(90, 30.0)
    item = case("clairvoyant", requests)
    return item, run_case(item)


def test_it_is_never_below_an_arm_that_it_begins_with(searched):
    item, run = searched
    found = {name: met(run_case(replace(item, arm=parse_arm(name)))) for name in starts(item)}
    assert met(run) >= max(found.values())
    assert run.chosen["start_met"] == max(found.values())
    assert found[run.chosen["start"]] == max(found.values())


def test_it_finds_more_than_they_do_and_not_more_than_the_bound(searched):
    item, run = searched
    assert met(run) > run.chosen["start_met"]
    bound = upper_bound(item.requests, item.profile, item.settings, item.span.until_s)
    assert met(run) <= bound.met + 1e-9


def test_it_has_an_outcome_for_each_request_in_order_also_for_those_that_it_drops(searched):
    item, run = searched
    assert [o.seq for o in run.outcomes] == list(range(90))
    assert [o.arrival_s for o in run.outcomes] == [r.arrival_s for r in item.requests]
    dropped = [o for o in run.outcomes if o.finish == "rejected"]
    assert dropped
    assert not any(o.met for o in dropped)


def test_it_repeats_itself(searched):
    item, run = searched
    assert run_case(item) == run


def test_without_tuning_it_begins_with_the_others_and_never_with_sglang(monkeypatch):
    item = case("clairvoyant")
    assert set(starts(item)) - set(starts(replace(item, tuned=None))) == {"vllm-tuned", "tree"}
    assert not any("sglang" in name for name in starts(item))
    monkeypatch.setattr(clairvoyant, "starts", lambda _: ["vllm-fcfs"])
    monkeypatch.setattr(clairvoyant, "EVALUATIONS", 1)
    few = run_case(item)
    assert met(few) >= met(run_case(replace(item, arm=parse_arm("vllm-fcfs"))))

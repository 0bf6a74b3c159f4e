"""Guardrails: each check refuses by name; what passes is `ok`."""

import pytest

from hmas_agents.config import ControlConfig
from hmas_agents.guardrails import DWELL_CAP_S, min_dwell_s, permit
from hmas_agents.records import Proposal
from serving.policies import POLICIES
from tests.agents.states import long_state

CONTROL = ControlConfig()


def test_an_allowed_policy_within_bounds_passes():
    assert permit(Proposal("model", "edf", {"kappa": 10.0}), long_state(), CONTROL, []) == "ok"


@pytest.mark.parametrize(
    ("policy", "params", "verdict"),
    [
        ("nope", {}, "allow-list"),
        ("fcfs", {}, "allow-list"),
        ("edf", {"kappa": 5000.0}, "bounds"),
        ("edf", {"beta": 1.0}, "bounds"),
        ("slide", {"kappa": float("nan")}, "bounds"),
    ],
)
def test_what_is_not_allowed_is_refused(policy, params, verdict):
    control = ControlConfig(allow_policies=("edf", "slide"))
    assert permit(Proposal("model", policy, params), long_state(), control, []).startswith(verdict)


def test_a_policy_stays_for_its_dwell_time():
    state = long_state(now_s=1000.0, e2e_p95_s=40.0)
    assert min_dwell_s(state, CONTROL) == 120.0
    assert permit(Proposal("rules", "edf"), state, CONTROL, [990.0]) == "dwell: 10 s of 120 s"
    assert permit(Proposal("rules", "edf"), state, CONTROL, [880.0]) == "ok"


def test_the_dwell_time_is_capped_and_never_below_the_configured_one():
    assert min_dwell_s(long_state(e2e_p95_s=1e6), CONTROL) == DWELL_CAP_S
    assert min_dwell_s(long_state(e2e_p95_s=None), CONTROL) == CONTROL.min_dwell_s


def test_an_alarm_cuts_the_dwell_time_to_the_configured_one():
    state = long_state(e2e_p95_s=40.0, alarms=("rate_up",))
    assert min_dwell_s(state, CONTROL) == CONTROL.min_dwell_s


def test_switches_per_hour_are_bounded():
    control = ControlConfig(max_switches_per_hour=2, min_dwell_s=0)
    state = long_state(now_s=4000.0, e2e_p95_s=0.0)
    assert permit(Proposal("rules", "edf"), state, control, [3000.0, 3500.0]).startswith("change")
    assert permit(Proposal("rules", "edf"), state, control, [300.0, 3500.0]) == "ok"


@pytest.mark.parametrize(("coverage", "ok"), [(0.9, True), (0.7, False), (None, False)])
def test_policies_that_need_lengths_wait_for_a_predictor_that_covers(monkeypatch, coverage, ok):
    monkeypatch.setattr(type(POLICIES["sjf"]), "needs_lengths", True, raising=False)
    control = ControlConfig(allow_policies=("edf", "sjf"))
    state = long_state(length_coverage=coverage)
    verdict = permit(Proposal("rules", "sjf"), state, control, [])
    assert (verdict == "ok") is ok
    assert ok or verdict.startswith("predictor")

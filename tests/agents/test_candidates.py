"""Hundreds of different settings, near ones first, and none that a rule agent moves."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.agents.arbiter import PRECEDENCE as CONCERNS
from hmas_agents.choice import key_of
from hmas_agents.twin.candidates import candidates_for, differing
from serving.contracts.rules import KNOBS, RULES, with_rules
from serving.policies import POLICIES, complete_params
from tests.agents.situations import SMALL

ALLOWED = ("edf", "density", "slide")


def keys(candidates):
    return [key_of(one.policy, one.params, one.limits) for one in candidates]


@given(
    policy=st.sampled_from(sorted(POLICIES)),
    rules=st.sets(st.sampled_from(sorted(RULES))),
    count=st.integers(0, 300),
    agents=st.sets(st.sampled_from(CONCERNS)),
)
def test_candidates_differ_from_each_other_and_from_what_is_in_force(policy, rules, count, agents):
    snapshot = replace(SMALL, policy=policy, params={}, limits=with_rules(SMALL.limits, rules))
    found = candidates_for(snapshot, ALLOWED, count, agents)
    assert len(found) <= count
    assert len(set(keys(found))) == len(found)
    assert key_of(policy, {}) not in keys(found)
    for one in found:
        complete_params(one.policy, one.params)
        assert one.policy in {*ALLOWED, policy}
        assert all(getattr(snapshot.limits, name) != value for name, value in one.limits.items())
        assert all(KNOBS[name].concern not in agents for name in one.limits)
    assert found == candidates_for(snapshot, ALLOWED, count, agents)


def test_there_are_hundreds_and_every_single_change_is_among_them():
    found = candidates_for(SMALL, ALLOWED, 300)
    assert len(found) == 300
    for rule in RULES.values():
        on = {name: value for name, value in rule.items() if getattr(SMALL.limits, name) != value}
        off = {name: False for name in rule if getattr(SMALL.limits, name)}
        assert key_of("fcfs", {}, on or off) in keys(found)
    for policy in ALLOWED:
        assert key_of(policy, {}) in keys(found)
    assert key_of("edf", {"kappa": 30.0}) in keys(found)


def test_all_rule_agents_leave_the_order_and_its_rules():
    found = candidates_for(SMALL, ALLOWED, 300, CONCERNS)
    moved = {name for one in found for name in one.limits}
    assert moved == {
        "follow_slack", "demote_hopeless", "max_partial_prefills", "prefill_by_key", "triage",
    }  # fmt: skip
    assert len(found) > 100


def test_what_is_in_force_already_is_no_difference():
    limits = {"follow_slack": True, "triage": True, "prefill_share": 0.35}
    assert differing(SMALL, limits, ("prefill",)) == {"triage": True}


def test_those_that_change_least_come_first():
    """They are tried where only a few can be."""
    one = SMALL
    changes = [
        (each.policy != one.policy) + len(each.limits)
        for each in candidates_for(one, ("fcfs", "edf", "slide"), 100)
    ]
    assert changes == sorted(changes)
    assert changes[0] <= 1 < changes[-1]

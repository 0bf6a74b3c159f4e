"""The tenant shares agent: buckets for as long as one tenant's flood, and no longer."""

from dataclasses import replace

import pytest

from hmas_agents.agents import tenant_shares
from serving.contracts import Limits
from tests.agents.short_states import asked
from tests.agents.states import short_state

BUCKETS = Limits(64, 2048, tenant_buckets=True)
FLOOD = short_state(
    waiting=30,
    hopeless_share=0.1,
    offered_by_tenant={"flooder": 0.8, "a": 0.1, "b": 0.1},
    requests_by_tenant={"flooder": 40, "a": 5, "b": 5},
    attainment_by_tenant={"flooder": 0.9, "a": 0.7, "b": 0.8, "long-gone": 0.0},
)


def calls(**differs) -> list[bool]:
    return [bool(asked(call)) for call in tenant_shares.propose(replace(FLOOD, **differs))]


def test_a_flood_that_makes_others_miss_switches_them_on():
    assert calls() == [True]


@pytest.mark.parametrize("differs", [
    {"waiting": 0},
    {"hopeless_share": 0.0},
    {"offered_by_tenant": {"flooder": 0.5, "a": 0.3, "b": 0.2}},
    {"offered_by_tenant": {"flooder": 1.0}, "requests_by_tenant": {"flooder": 50}},
    {"requests_by_tenant": {"flooder": 14, "a": 3, "b": 2}},
    {"requests_by_tenant": {"flooder": 20, "a": 10, "b": 10}},
    {"offered_by_tenant": {}, "requests_by_tenant": {}},
    {"attainment_by_tenant": {"flooder": 0.1, "a": 0.95, "b": 0.95}},
    {"attainment_by_tenant": {"flooder": 0.1, "long-gone": 0.0}},
])  # fmt: skip
def test_nothing_happens_otherwise(differs):
    assert calls(**differs) == []


def test_where_triage_protects_the_others_they_stay_off_and_go_off():
    assert calls(limits=replace(FLOOD.limits, triage=True)) == []
    assert calls(limits=replace(BUCKETS, triage=True)) == [False]


def test_a_tenant_may_send_as_many_times_more_as_it_weighs():
    assert calls(weight_by_tenant={"flooder": 3.0, "a": 1.0, "b": 1.0}) == []
    assert calls(weight_by_tenant={"flooder": 2.0, "a": 1.0, "b": 1.0}) == [True]
    assert calls(weight_by_tenant={"flooder": 3.0, "a": 3.0, "b": 3.0}) == [True]
    lighter = {"flooder": 0.3, "a": 1.0, "b": 1.0}
    shares = {"flooder": 0.5, "a": 0.3, "b": 0.2}
    sent = {"flooder": 25, "a": 15, "b": 10}
    assert calls(offered_by_tenant=shares, requests_by_tenant=sent) == []
    assert calls(
        offered_by_tenant=shares, requests_by_tenant=sent, weight_by_tenant=lighter
    ) == [True]  # fmt: skip
    even = {"offered_by_tenant": {"a": 0.5, "b": 0.5}, "requests_by_tenant": {"a": 20, "b": 20}}
    assert calls(**even, weight_by_tenant={"a": 1.0, "b": 4.0}, limits=BUCKETS) == []


def test_misses_to_be_switch_them_on_before_outcomes_tell():
    fine = {"flooder": 1.0, "a": 1.0, "b": 1.0}
    assert calls(attainment_by_tenant=fine, in_vain_share=0.11) == [True]
    assert calls(attainment_by_tenant=fine, in_vain_share=0.1) == []


def test_while_the_flood_lasts_they_stay_although_the_others_attain():
    protected = {"flooder": 0.3, "a": 1.0, "b": 1.0}
    assert calls(limits=BUCKETS, attainment_by_tenant=protected) == []


@pytest.mark.parametrize("differs", [
    {"waiting": 0},
    {"offered_by_tenant": {"flooder": 0.4, "a": 0.3, "b": 0.3}},
    {"requests_by_tenant": {"flooder": 10, "a": 8, "b": 2}},
])  # fmt: skip
def test_they_go_off_when_it_is_over(differs):
    assert calls(limits=BUCKETS, **differs) == [False]

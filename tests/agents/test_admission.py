"""The admission agent: refusals against the trouble of those who may be refused."""

from dataclasses import replace

import pytest

from hmas_agents.agents import admission
from serving.contracts import Limits
from tests.agents.short_states import SHEDDABLE, asked
from tests.agents.states import short_state

IN_VAIN = short_state(
    waiting=40, sheddable=SHEDDABLE, sheddable_waiting=20, sheddable_in_vain_share=0.8,
    attainment_by_class={"interactive": 0.6, "conversational": 0.97, "batch": 0.1},
)  # fmt: skip


def shed(**differs) -> list[float]:
    return [asked(call) for call in admission.propose(replace(IN_VAIN, **differs))]


@pytest.mark.parametrize("differs", [
    {"sheddable": ()},
    {"sheddable_in_vain_share": 0.5},
    {"sheddable_waiting": 3},
    {"attainment_by_class": {"interactive": 0.95, "batch": 0.0}},
    {"attainment_by_class": {"batch": 0.0}},
    {"limits": Limits(64, 2048, shed=1.0)},
])  # fmt: skip
def test_nothing_is_refused_without_cause(differs):
    assert shed(**differs) == []


def test_refusals_rise_by_quarters_while_others_miss_and_it_waits_in_vain():
    assert shed() == [0.25]
    assert shed(limits=Limits(64, 2048, shed=0.9)) == [1.0]


def test_others_that_wait_in_vain_count_before_their_outcomes_do():
    fine = {"interactive": 1.0, "batch": 0.1}
    assert shed(attainment_by_class=fine, in_vain_share=0.11) == [0.25]
    some = Limits(64, 2048, shed=0.5)
    quiet = {"limits": some, "attainment_by_class": fine, "sheddable_in_vain_share": 0.0}
    assert shed(**quiet, in_vain_share=0.05) == []
    assert shed(**quiet, in_vain_share=0.01) == [0.25]


def test_they_fall_when_the_others_attain_or_nothing_waits_and_stay_between():
    some = Limits(64, 2048, shed=0.5)
    attained = {"interactive": 0.99, "batch": 0.1}
    assert shed(limits=some, attainment_by_class=attained) == [0.25]
    assert shed(limits=some, waiting=0, sheddable_waiting=0) == [0.25]
    between = {"interactive": 0.95, "batch": 0.1}
    assert shed(limits=some, attainment_by_class=between) == []
    assert shed(limits=some, sheddable_in_vain_share=0.0) == []

"""The admission agent: as many at once as keep pace, and refusals against their own trouble."""

from dataclasses import replace

import pytest

from hmas_agents.agents import admission
from serving.contracts import Limits
from tests.agents.short_states import SHEDDABLE, asked
from tests.agents.states import short_state

FOLLOWING = Limits(256, 2048, follow_slack=True)
CROWDED = short_state(
    waiting=9, running=120, decoding=119, prefilling=1, limits=FOLLOWING, max_active_requests=256,
    step_base_s=0.00775, decode_s=0.0002, tpot_targets=((0.03, 0.4), (0.1, 0.4)),
)  # fmt: skip
IN_VAIN = short_state(
    waiting=40, sheddable=SHEDDABLE, sheddable_waiting=20, sheddable_in_vain_share=0.8,
    attainment_by_class={"interactive": 0.6, "conversational": 0.97, "batch": 0.1},
)  # fmt: skip


def shed(**differs) -> list[float]:
    return [asked(call) for call in admission.shed_share(replace(IN_VAIN, **differs))]


def test_so_many_at_once_as_keep_the_pace_that_most_are_promised():
    # 0.95 * 30 ms is 22.8 ms and a quarter of it for prefill: (22.8 - 7.75) / 0.2 decodes.
    (call,) = admission.active_requests(CROWDED)
    assert (call["name"], asked(call)) == ("set_max_active_requests", 75)
    held = replace(CROWDED, limits=replace(FOLLOWING, max_active_requests=75))
    assert admission.active_requests(held) == []


def test_a_limit_that_would_bind_nobody_is_not_set():
    assert admission.active_requests(replace(CROWDED, running=60)) == []
    assert asked(admission.active_requests(replace(CROWDED, running=61))[0]) == 75


@pytest.mark.parametrize(("differs", "why"), [
    ({"tpot_targets": ((0.001, 0.2), (0.2, 0.8))}, "no number keeps a target of 1 ms"),
    ({"tpot_targets": ((0.03, 0.05), (0.2, 0.95))}, "few have the tight one"),
    ({"tpot_targets": ((0.2, 1.0),)}, "as many as there may be keep 200 ms"),
    ({"tpot_targets": ()}, "nobody was promised a pace"),
    ({"decode_s": 0.0}, "what a decode costs is unknown"),
    ({"limits": Limits(256, 2048)}, "steps are as long as prompts make them"),
    ({"limits": replace(FOLLOWING, pace_decodes=True)}, "the engine keeps the paces itself"),
])  # fmt: skip
def test_concurrency_stays(differs, why):
    assert admission.active_requests(replace(CROWDED, **differs)) == [], why


def test_a_target_that_is_kept_is_given_up_only_for_a_fifth_more():
    held = replace(CROWDED, limits=replace(FOLLOWING, max_active_requests=75))
    unbounded = 256 / (0.00775 + 256 * 0.0002)
    kept = 75 / (0.00775 + 75 * 0.0002)
    for share, limit in ((1 - 1.19 * kept / unbounded, []), (1 - 1.21 * kept / unbounded, [256])):
        calls = admission.active_requests(replace(held, tpot_targets=((0.03, share),)))
        assert [asked(call) for call in calls] == limit


def test_concurrency_comes_back_with_the_pace_and_at_once_when_few_run():
    held = replace(CROWDED, limits=replace(FOLLOWING, max_active_requests=64))
    assert asked(admission.active_requests(held)[0]) == 75
    assert asked(admission.active_requests(replace(held, running=30))[0]) == 256


def test_there_is_a_floor_and_a_limit_is_one_ranks():
    slow = replace(CROWDED, decode_s=0.01)
    assert asked(admission.active_requests(slow)[0]) == 32
    assert admission.active_requests(replace(CROWDED, ranks=4)) == []


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

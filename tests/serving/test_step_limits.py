"""Does a step fit the tightest decode's slack, is KV kept free, does the load slide hold still?"""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.perception.cost_model import StepShape
from serving.step_limits import PREFILL_FLOOR, DecodeSlack, LoadSlide, kv_allows, slack_budget

COST = CostCoefficients(0.005, 1e-4, 1e-4, 1e-7)
decodes_of = st.lists(
    st.builds(DecodeSlack, st.floats(-5, 5), st.floats(1, 500), st.floats(0.001, 1)),
    min_size=1,
    max_size=20,
)
caps = st.integers(1, 8192)
margins = st.floats(0, 0.5)


def shape_of(decodes: list[DecodeSlack]) -> StepShape:
    return StepShape(decodes=len(decodes), decode_context=200 * len(decodes))


def floor_of(cap: int, shape: StepShape) -> int:
    prefill_s = PREFILL_FLOOR * shape.seconds(COST)
    return min(cap, shape.decodes + max(1, int(prefill_s / COST.per_prefill_token_s)))


@settings(deadline=None)
@given(decodes=decodes_of, cap=caps, margin=margins)
def test_the_budget_lies_between_floor_and_cap_and_fits_the_slack(decodes, cap, margin):
    shape = shape_of(decodes)
    budget = slack_budget(cap, decodes, shape, COST, margin)
    assert floor_of(cap, shape) <= budget <= cap
    slacks = [d.slack_s for d in decodes if d.recoverable(shape.seconds(COST))]
    if not slacks:
        assert budget == cap
    elif budget > floor_of(cap, shape):

        def step_s(tokens: int) -> float:
            prefill = tokens - shape.decodes
            return StepShape(prefill, shape.decodes, shape.decode_context).seconds(COST)

        assert (1 + margin) * step_s(budget) <= min(slacks) + 1e-9
        if budget < cap:
            assert (1 + margin) * step_s(budget + 2) > min(slacks), "and it is the largest"


@settings(deadline=None)
@given(decodes=decodes_of, cap=caps, margin=margins, more_s=st.floats(0, 2))
def test_more_slack_never_means_a_smaller_budget(decodes, cap, margin, more_s):
    shape = shape_of(decodes)
    step_s = shape.seconds(COST)
    assume(all(d.recoverable(step_s) for d in decodes))
    roomier = [DecodeSlack(d.slack_s + more_s, d.expected_tokens, d.tpot_s) for d in decodes]
    before = slack_budget(cap, decodes, shape, COST, margin)
    assert slack_budget(cap, roomier, shape, COST, margin) >= before


@settings(deadline=None)
@given(decodes=decodes_of, lost_s=st.floats(-100, -50), cap=caps)
def test_a_decode_that_cannot_be_saved_does_not_bound_the_step(decodes, lost_s, cap):
    shape = shape_of(decodes)
    lost = DecodeSlack(lost_s, expected_tokens=10.0, tpot_s=0.05)
    assert not lost.recoverable(shape.seconds(COST))
    without = slack_budget(cap, decodes, shape, COST, 0.1)
    assert slack_budget(cap, [*decodes, lost], shape, COST, 0.1) == without
    assert slack_budget(cap, [lost], StepShape(decodes=1), COST, 0.1) == cap


def test_a_figure_checkable_by_hand():
    # One decode due in 30 ms: 30/1.1 - 5 - 0.1 ms leaves 22.17 ms, 221 tokens of 0.1 ms.
    one = [DecodeSlack(0.030, 10.0, 0.030)]
    cost = CostCoefficients(0.005, 1e-4, 1e-4)
    assert slack_budget(2048, one, StepShape(decodes=1), cost, 0.1) == 1 + 221
    assert slack_budget(100, one, StepShape(decodes=1), cost, 0.1) == 100
    # No slack at all: a quarter of the decodes' own 5.1 ms, 12 tokens.
    late = [DecodeSlack(0.0, 10.0, 0.030)]
    assert slack_budget(2048, late, StepShape(decodes=1), cost, 0.1) == 1 + 12


@pytest.mark.parametrize(
    ("decodes", "cost"),
    [([], COST), ([DecodeSlack(0.0, 9.0, 1.0)], CostCoefficients(0.01, 0.0, 0.0))],
    ids=["no decodes with a target", "prefill is free"],
)
def test_nothing_to_protect_means_no_bound(decodes, cost):
    assert slack_budget(512, decodes, StepShape(decodes=1), cost, 0.1) == 512


@settings(deadline=None)
@given(st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 10**6), st.floats(0, 0.9))
def test_kv_is_admitted_only_below_the_reserve(peak, need, total, reserve):
    allowed = kv_allows(peak, need, total, reserve)
    assert allowed == (peak + need <= total * (1 - reserve))
    if allowed:
        assert kv_allows(peak, need / 2, total, reserve)
        assert kv_allows(peak, need, total, reserve / 2)


def test_the_load_runs_from_none_to_full_in_quarters():
    slide = LoadSlide()
    assert (slide.update(1.0, 2.0), slide.load) == (False, 0.0)  # half the horizon: none
    assert (slide.update(2.0, 2.0), slide.load) == (True, 0.5)
    assert (slide.update(3.0, 2.0), slide.load) == (True, 1.0)  # 1.5 horizons: full
    assert (slide.update(1e9, 2.0), slide.load) == (False, 1.0)
    assert (slide.update(0.0, 2.0), slide.load) == (True, 0.0)
    assert (slide.update(1.0, 0.0), slide.load) == (True, 1.0)  # no horizon, no division by 0


def test_small_changes_do_not_move_the_load():
    slide = LoadSlide()
    slide.update(2.0, 2.0)
    for backlog_s in (1.62, 2.38, 1.8, 2.2) * 3:  # raw load 0.31 to 0.69 around 0.5
        assert not slide.update(backlog_s, 2.0)
        assert slide.load == 0.5


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 10))
def test_the_load_is_a_quarter_near_the_raw_one_and_says_when_it_moves(backlogs_s, horizon_s):
    slide = LoadSlide()
    for backlog_s in backlogs_s:
        before = slide.load
        changed = slide.update(backlog_s, horizon_s)
        raw = min(1.0, max(0.0, backlog_s / max(horizon_s, 1e-3) - 0.5))
        assert slide.load in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert changed == (slide.load != before)
        assert abs(slide.load - raw) <= LoadSlide.HYSTERESIS + 1e-9
        if abs(raw - before) < LoadSlide.HYSTERESIS - 1e-9:
            assert not changed
    assert math.isfinite(slide.load)

"""Does a step fit the tightest decode's slack, is the KV peak right, does the load hold still?"""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.batch import DecodeState
from serving.contracts import CostCoefficients
from serving.perception.cost_model import StepShape
from serving.step_limits import AHEAD, PREFILL_FLOOR, LoadSlide, peak_tokens, slack_budget

COST = CostCoefficients(0.005, 1e-4, 1e-4, 1e-7)
Decode = tuple[float, float, float]  # slack in s, tokens to come, TPOT target in s
decodes_of = st.lists(
    st.tuples(st.floats(-5, 5), st.floats(1, 500), st.floats(0.001, 1)), min_size=1, max_size=20
)
caps = st.integers(1, 8192)
margins = st.floats(0, 0.5)


def state_of(decodes: list[Decode], context: float = 200.0) -> DecodeState:
    slack_s, remaining, tpot_s = np.array(decodes, dtype=float).reshape(-1, 3).T
    decoding = np.ones(len(decodes), dtype=bool)
    return DecodeState(decoding, slack_s, remaining, np.full(len(decodes), context), tpot_s)


def floor_of(cap: int, shape: StepShape, share: float = 0.0) -> int:
    prefill_s = max(PREFILL_FLOOR, share / (1 - share)) * shape.seconds(COST)
    return min(cap, shape.decodes + max(1, int(prefill_s / COST.per_prefill_token_s)))


@settings(deadline=None)
@given(decodes=decodes_of, cap=caps, margin=margins, share=st.floats(0, 0.9))
def test_the_budget_lies_between_floor_and_cap_and_fits_the_slack(decodes, cap, margin, share):
    state = state_of(decodes)
    shape, floor = state.shape, floor_of(cap, state.shape, share)
    budget = slack_budget(cap, state, COST, margin, share)
    assert floor <= budget <= cap or budget == cap
    slacks = (state.slack_s - AHEAD * state.tpot_s)[state.recoverable(COST)]
    if not len(slacks):
        assert budget == cap
    elif budget > floor:

        def step_s(tokens: int) -> float:
            prefill = tokens - shape.decodes
            return StepShape(prefill, shape.decodes, shape.decode_context).seconds(COST)

        assert (1 + margin) * step_s(budget) <= min(slacks) + 1e-9
        if budget < cap:
            assert (1 + margin) * step_s(budget + 2) > min(slacks), "and it is the largest"


@settings(deadline=None)
@given(decodes=decodes_of, cap=caps, margin=margins, more_s=st.floats(0, 2))
def test_more_slack_never_means_a_smaller_budget(decodes, cap, margin, more_s):
    state = state_of(decodes)
    assume(state.recoverable(COST).all())
    roomier = state_of([(slack_s + more_s, left, tpot_s) for slack_s, left, tpot_s in decodes])
    before = slack_budget(cap, state, COST, margin)
    assert slack_budget(cap, roomier, COST, margin) >= before


@settings(deadline=None)
@given(decodes=decodes_of, share=st.floats(0, 0.9), more=st.floats(0, 0.09))
def test_a_larger_share_for_prefill_never_means_a_smaller_budget(decodes, share, more):
    state = state_of(decodes)
    before = slack_budget(8192, state, COST, 0.1, share)
    assert slack_budget(8192, state, COST, 0.1, share + more) >= before


def test_a_decode_that_cannot_be_saved_does_not_bound_the_step():
    saved, lost = (0.030, 10.0, 0.030), (-50.0, 10.0, 0.05)
    assert list(state_of([saved, lost]).recoverable(COST)) == [True, False]
    cost = CostCoefficients(0.005, 1e-4, 0.0)
    alone = slack_budget(512, state_of([saved]), cost, 0.1)
    assert alone < 512
    assert slack_budget(512, state_of([saved, lost]), cost, 0.1) == alone + 1  # its own token
    assert slack_budget(512, state_of([lost]), COST, 0.1) == 512


def test_a_figure_checkable_by_hand():
    # One decode due in 30 ms, aimed at 1.5 ms early: 28.5/1.1 - 5 - 0.1 ms leaves 20.81 ms,
    # 208 tokens of 0.1 ms; of 0.125 ms behind 2,500 tokens of the same prompt, 166.
    one = state_of([(0.030, 10.0, 0.030)])
    cost = CostCoefficients(0.005, 1e-4, 1e-4)
    assert slack_budget(2048, one, cost, 0.1) == 1 + 208
    squared = CostCoefficients(0.005, 1e-4, 1e-4, per_square_s=1e-8)
    assert slack_budget(2048, one, squared, 0.1) == 1 + 208
    assert slack_budget(2048, one, squared, 0.1, context=2_500) == 1 + 166
    assert slack_budget(100, one, cost, 0.1) == 100
    # No slack at all: a quarter of the decodes' own 5.1 ms, 12 tokens; or half of the step, 51.
    late = state_of([(0.0, 10.0, 0.030)])
    assert slack_budget(2048, late, cost, 0.1) == 1 + 12
    assert slack_budget(2048, late, cost, 0.1, share=0.5) == 1 + 51


def test_nothing_to_protect_means_no_bound():
    assert slack_budget(512, state_of([]), COST, 0.1) == 512
    assert slack_budget(512, state_of([(math.inf, 9.0, 0.0)]), COST, 0.1) == 512, "no target"
    free = CostCoefficients(0.01, 0.0, 0.0)
    assert slack_budget(512, state_of([(0.0, 9.0, 1.0)]), free, 0.1) == 512


lives = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 500)), max_size=15)


@settings(deadline=None)
@given(lives)
def test_the_kv_peak_is_that_of_every_step_until_all_have_ended(requests):
    """Played forward: each holds one token more per step, and nothing once it has ended."""
    held = [
        sum(tokens + step for tokens, left in requests if step <= left)
        for step in range(max((left for _, left in requests), default=0) + 1)
    ]
    tokens, left = np.array(requests, dtype=float).reshape(-1, 2).T
    assert peak_tokens(tokens, left) == max(held, default=0)


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

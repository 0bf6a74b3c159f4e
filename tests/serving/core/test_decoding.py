"""Does a step fit the tightest decode's slack, and is the KV peak right?"""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.core.decoding import (
    AHEAD,
    PREFILL_FLOOR,
    blocks_of,
    blocks_of_batch,
    decodes,
    look,
    peak_blocks,
    slack_budget,
)
from serving.core.state import Core
from tests.serving.core.samples import Running, batch_of, step_s

COST = CostCoefficients(0.005, 1e-4, 1e-4, 1e-7)
decodes_of = st.lists(
    st.tuples(st.floats(-5, 5), st.floats(1, 500), st.floats(0.001, 1)).map(
        lambda each: Running(*each)
    ),
    min_size=1,
    max_size=20,
)
caps = st.integers(1, 8192)
margins = st.floats(0, 0.5)


def due(slack_s: float, tpot_s: float) -> Running:
    return Running(slack_s, 10.0, tpot_s)


def budget_of(
    batch: list[Running], cost: CostCoefficients = COST, margin: float = 0.1, cap: int = 2048,
    share: float = 0.0, context: int = 0,
) -> int:  # fmt: skip
    core = batch_of(batch, cost, margin, token_budget=cap)
    return int(slack_budget(core, share, context))


def aims_s(core: Core, batch: list[Running]) -> list[float]:
    """Until when the tokens of decodes are due, less what they aim ahead, if still in time."""
    decode_step_s = step_s(core, 0, *decodes(core))
    return [
        one.slack_s - AHEAD * one.tpot_s for one in batch
        if one.slack_s + one.remaining * (one.tpot_s - decode_step_s) >= 0.0
    ]  # fmt: skip


@settings(deadline=None)
@given(batch=decodes_of, cap=caps, margin=margins, share=st.floats(0, 0.9))
def test_the_budget_lies_between_floor_and_cap_and_fits_the_slack(batch, cap, margin, share):
    core = batch_of(batch, COST, margin, token_budget=cap)
    count, context = decodes(core)
    assert (count, context) == (len(batch), 200 * len(batch))
    floor_s = max(PREFILL_FLOOR, share / (1 - share)) * step_s(core, 0, count, context)
    floor = min(cap, count + max(1, int(floor_s / COST.per_prefill_token_s)))
    budget = slack_budget(core, share, 0)
    assert floor <= budget <= cap
    aims = aims_s(core, batch)
    if not aims:
        assert budget == cap
    elif budget > floor:
        assert (1 + margin) * step_s(core, budget - count, count, context) <= min(aims) + 1e-9
        if budget < cap:
            larger_s = step_s(core, budget + 2 - count, count, context)
            assert (1 + margin) * larger_s > min(aims), "and it is the largest"


@settings(deadline=None)
@given(batch=decodes_of, cap=caps, margin=margins, more_s=st.floats(0, 2))
def test_more_slack_never_means_a_smaller_budget(batch, cap, margin, more_s):
    assume(len(aims_s(batch_of(batch, COST), batch)) == len(batch))
    roomier = [one._replace(slack_s=one.slack_s + more_s) for one in batch]
    assert budget_of(roomier, COST, margin, cap) >= budget_of(batch, COST, margin, cap)


@settings(deadline=None)
@given(batch=decodes_of, share=st.floats(0, 0.9), more=st.floats(0, 0.09))
def test_a_larger_share_for_prefill_never_means_a_smaller_budget(batch, share, more):
    before = budget_of(batch, cap=8192, share=share)
    assert budget_of(batch, cap=8192, share=share + more) >= before


def test_a_decode_that_cannot_be_saved_does_not_bound_the_step():
    saved, lost = due(0.030, 0.030), due(-50.0, 0.05)
    cost = CostCoefficients(0.005, 1e-4, 0.0)
    alone = budget_of([saved], cost, cap=512)
    assert alone < 512
    assert budget_of([saved, lost], cost, cap=512) == alone + 1  # its own token
    assert budget_of([lost], cap=512) == 512


def test_a_decode_is_saved_or_lost_by_the_tokens_that_it_gets():
    """A step of 21 ms is too long for 12 ms a token, unless it brings four of them."""
    cost, lost = CostCoefficients(20e-3, 1e-3, 1e-3), due(0.01, 12e-3)
    assert budget_of([lost], cost) == 2048
    fast = batch_of([lost._replace(tokens_per_step=4.0)], cost, drafts=3)
    assert slack_budget(fast, 0.0, 0) < 2048
    assert slack_budget(batch_of([lost], cost, drafts=3), 0.0, 0) == 2048


def test_a_figure_checkable_by_hand():
    # One decode due in 30 ms, aimed at 1.5 ms early: 28.5/1.1 - 5 - 0.1 ms leaves 20.81 ms,
    # 208 tokens of 0.1 ms; of 0.125 ms behind 2,500 tokens of the same prompt, 166.
    one = [due(0.030, 0.030)]
    cost = CostCoefficients(0.005, 1e-4, 1e-4)
    assert budget_of(one, cost) == 1 + 208
    squared = CostCoefficients(0.005, 1e-4, 1e-4, per_square_s=1e-8)
    assert budget_of(one, squared) == 1 + 208
    assert budget_of(one, squared, context=2_500) == 1 + 166
    assert budget_of(one, cost, cap=100) == 100
    # No slack at all: a quarter of the decodes' own 5.1 ms, 12 tokens; or half of the step, 51.
    late = [due(0.0, 0.030)]
    assert budget_of(late, cost) == 1 + 12
    assert budget_of(late, cost, share=0.5) == 1 + 51


def test_nothing_to_protect_means_no_bound():
    assert budget_of([], cap=512) == 512
    assert budget_of([Running()], cap=512) == 512, "no target"
    assert budget_of([due(0.0, 1.0)], CostCoefficients(0.01, 0.0, 0.0), cap=512) == 512


def test_who_skips_the_step_neither_counts_nor_bounds_it():
    tight, usual = due(0.010, 0.030), due(0.030, 0.030)
    core = batch_of([tight, usual], CostCoefficients(0.005, 1e-4, 1e-4), 0.1)
    assert slack_budget(core, 0.0, 0) < 209
    core.requests["hidden"][0] = 1
    assert decodes(core) == (1, 200)
    assert slack_budget(core, 0.0, 0) == 209


def test_how_a_request_stands_is_by_hand():
    """Prompt of 10, first token at 5 s, 0.1 s a token; 13 computed, so it has had 4 tokens."""
    core = batch_of([Running(tpot_s=0.1)] * 3, COST, start_s=5.35)
    requests = core.requests
    requests["whole_prompt_tokens"], requests["start_tokens"] = 10, 10
    requests["expected_tokens"], requests["first_token_s"] = 100.0, 5.0
    requests["computed_tokens"][:3] = 13, 9, 13
    requests["active"][2] = 0  # its admission was not noted
    look(core)
    seen = requests[["decoding", "remaining", "held_tokens"]][:3].tolist()
    assert seen == [(1, 96.0, 13.0), (0, 100.0, 10.0), (0, 0.0, 0.0)]
    assert [round(slack_s, 9) for slack_s in requests["slack_s"][:3]] == [0.05, math.inf, math.inf]
    requests["computed_tokens"][0] = 200
    look(core)
    assert requests["remaining"][0] == 16.0, "it has outgrown its prediction"


lives = st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 500)), max_size=15)


@settings(deadline=None)
@given(lives)
def test_the_kv_peak_is_that_of_every_step_until_all_have_ended(requests):
    """Played forward: each holds one token more per step, and nothing once it has ended."""
    held = [
        sum(tokens + step for tokens, left in requests if step <= left)
        for step in range(max((left for _, left in requests), default=0) + 1)
    ]
    batch = [Running(held_tokens=tokens, remaining=left) for tokens, left in requests]
    core = batch_of(batch, COST)
    half_empty = len(batch) // 2  # blocks of which the last token is free on average
    assert peak_blocks(core) == max(held, default=0) + half_empty
    core.engine["prefix_caching"], core.engine["used_blocks"] = 1, sum(t for t, _ in requests)
    assert peak_blocks(core) == max(held, default=0), "what several share is there once"


def test_blocks_by_hand():
    """Full attention in blocks of 4, and a window of at most 3 blocks of 16."""
    core = batch_of([], COST)._replace(groups=np.array([[4.0, math.inf], [16.0, 3.0]]))
    assert [blocks_of(core, float(tokens)) for tokens in (1, 16, 17, 100)] == [2, 5, 7, 28]
    # 100 / 4 and a half-filled one; of the window at least one each, at most three.
    assert blocks_of_batch(core, 100.0, 2) == 25 + 1 + 6
    assert blocks_of_batch(core, 20.0, 2) == 5 + 1 + 3

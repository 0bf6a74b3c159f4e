"""Do decodes rest only where they can?"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.core.decoding import AHEAD, PREFILL_FLOOR
from serving.core.pacing import HASTE, TURNS, rest
from serving.core.state import Core
from tests.serving.core.samples import Running, batch_of

COST = CostCoefficients(0.005, 1e-4, 1e-3)  # a step of 20 decodes takes 25 ms
FAST_S, SLOW_S = 0.030, 0.120
batches = st.lists(
    st.tuples(
        st.floats(-1, 5) | st.just(math.inf), st.floats(1, 500),
        st.sampled_from([math.inf, 0.01, 0.03, 0.1]), st.booleans(),
    ).map(lambda each: Running(*each)),
    min_size=1, max_size=60,
)  # fmt: skip


def core_with(fast: int = 0, slow: int = 0, free: int = 0) -> Core:
    """Decodes that are due in the time of one token each, and some without a target."""
    return batch_of(
        [Running(FAST_S, 100, FAST_S)] * fast + [Running(SLOW_S, 100, SLOW_S)] * slow
        + [Running(math.inf, 100)] * free, COST,
    )  # fmt: skip


def rests(core: Core, *, prompts_wait: bool = False) -> np.ndarray:
    """Which of the running requests skip the coming step."""
    count = int(core.engine["running"][0])
    core.requests["hidden"] = 0
    before = int(core.engine["rested_decodes"][0])
    rest(core, prompts_wait)
    mask: np.ndarray = core.requests["hidden"][:count] > 0
    assert core.engine["resting"][0] == mask.sum() == core.engine["rested_decodes"][0] - before
    return mask


def keeps_pace(batch: list[Running]) -> np.ndarray:
    """By a plain loop: who reaches its mean TPOT if each goes at its own pace."""
    each_s = [COST.per_decode_s * one.decoding for one in batch]

    def step_s(pace_s: float) -> float:
        return COST.base_s + sum(
            c_s * min(1.0, pace_s / (TURNS * pace_s if one.tpot_s == math.inf else one.tpot_s))
            for c_s, one in zip(each_s, batch, strict=True)
        )

    return np.array([
        one.decoding and one.slack_s < math.inf > one.tpot_s
        and one.slack_s + one.remaining * (one.tpot_s - step_s(one.tpot_s)) >= 0.0
        for one in batch
    ], bool)  # fmt: skip


def test_a_batch_that_fits_the_tightest_pace_decodes_whole():
    assert not rests(core_with(fast=10, slow=10)).any()


def test_in_a_batch_that_does_not_the_slow_ones_make_room():
    mask = rests(core_with(fast=10, slow=40))
    assert not mask[:10].any()
    # 28.5 ms until the fast ones are due 5% early; 5 are the base's, 10 theirs.
    assert (~mask[10:]).sum() == 13


def test_while_prompts_wait_decodes_get_what_their_paces_need_and_a_little_more():
    core = core_with(fast=4, slow=8)
    assert not rests(core).any()
    mask = rests(core, prompts_wait=True)
    assert (~mask).sum() == int(HASTE * (4 + 8 * FAST_S / SLOW_S))


def test_who_is_alike_rests_for_nobody():
    assert not rests(core_with(slow=20)).any()
    assert not rests(core_with(fast=15), prompts_wait=True).any()


def test_who_has_no_pace_to_keep_takes_turns():
    core, served = core_with(fast=15, free=20), np.zeros(35, int)
    for _ in range(TURNS):
        served += ~rests(core)
    assert served[:15].min() == TURNS
    assert served[15:].min() == 1


@pytest.mark.parametrize("field", ["lora", "prefilling"])
def test_who_has_an_adapter_or_waits_for_a_first_token_goes_on(field):
    """vLLM counts the LoRAs of the requests that it sees, and asserts that they are few."""
    core = core_with(fast=10, slow=40)
    core.requests[field][10:50] = 1
    assert not rests(core).any()


def test_short_of_blocks_nobody_rests():
    """vLLM preempts whom it finds in the batch: those who sit out would be spared for nothing."""
    core = core_with(fast=10, slow=40)
    core.engine["free_blocks"] = core.engine["budget"] + 50
    assert not rests(core).any()
    core.engine["free_blocks"] += 1
    assert rests(core).any()


def test_a_pace_is_kept_or_given_up_by_the_tokens_that_a_decode_gets():
    """A step of 20 ms is too long for 12 ms a token, unless it brings four of them."""
    cost = CostCoefficients(20e-3, 1e-3, 1e-6)
    for fast in (0, 1):
        batch = [Running(0.01, 100, 12e-3, held_tokens=50.0)] * 2
        batch[fast] = batch[fast]._replace(tokens_per_step=4.0)
        # One of them decodes in any case, the first due that keeps its pace.
        assert rests(batch_of(batch, cost, drafts=3)).tolist() == [fast == 1, fast == 0]
    assert not rests(batch_of([batch[0]._replace(tokens_per_step=1.0)] * 2, cost, drafts=3)).any()


@settings(deadline=None)
@given(batch=batches, prompts_wait=st.booleans(), step=st.integers(0, 9))
def test_whatever_the_batch_the_next_due_go_and_enough_of_all(batch, prompts_wait, step):
    core = batch_of(batch, COST, paced_steps=step)
    mask = rests(core, prompts_wait=prompts_wait)
    decoding = np.array([one.decoding for one in batch])
    assert not (mask & ~decoding).any(), "a prefill is not a decode that could rest"
    count = int(decoding.sum())
    assert count == 0 or (decoding & ~mask).sum() >= count / TURNS
    keeps = keeps_pace(batch)
    if not keeps.any():
        assert not mask.any()
    elif mask.any():
        due_s = np.array([one.slack_s - AHEAD * min(one.tpot_s, 1e9) for one in batch])
        goes = keeps & ~mask
        if goes.any() and (keeps & mask).any():
            assert due_s[goes].max() <= due_s[keeps & mask].min(), "the earliest due go"
        going_s = COST.base_s + COST.per_decode_s * (count - mask.sum())
        room_s = max(due_s[keeps].min(), 0.0) / (1 + PREFILL_FLOOR * prompts_wait)
        assert going_s <= room_s + 1e-9 or (count - mask.sum()) == -(-count // TURNS)

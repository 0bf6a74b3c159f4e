"""Does the load hold still, and is a step planned for the requests that it will find?"""


import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.core.control import plan, slide
from serving.core.state import Core
from tests.serving.core.samples import Running, batch_of, put

HYSTERESIS = 0.2
COST = CostCoefficients(5e-3, 1e-4, 1e-3)


def test_the_load_runs_from_none_to_full_in_quarters():
    assert slide(0.0, 1.0, 2.0) == 0.0, "half the horizon: none"
    assert slide(0.0, 2.0, 2.0) == 0.5
    assert slide(0.5, 3.0, 2.0) == 1.0, "1.5 horizons: full"
    assert slide(1.0, 1e9, 2.0) == 1.0
    assert slide(1.0, 0.0, 2.0) == 0.0
    assert slide(0.0, 1.0, 0.0) == 1.0, "no horizon, no division by 0"


@pytest.mark.parametrize("backlog_s", [1.62, 2.38, 1.8, 2.2])  # raw load 0.31 to 0.69 around 0.5
def test_small_changes_do_not_move_the_load(backlog_s):
    assert slide(0.5, backlog_s, 2.0) == 0.5


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 10))
def test_the_load_is_a_quarter_near_the_raw_one(backlogs_s, horizon_s):
    load = 0.0
    for backlog_s in backlogs_s:
        before, load = load, slide(load, backlog_s, horizon_s)
        raw = min(1.0, max(0.0, backlog_s / max(horizon_s, 1e-3) - 0.5))
        assert load in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert abs(load - raw) <= HYSTERESIS + 1e-9
        if abs(raw - before) < HYSTERESIS - 1e-9:
            assert load == before


# -- a plan ------------------------------------------------------------------------------


def core_with(begun: list[int], decodes: int = 2, policy: str = "edf", **engine: float) -> Core:
    """Decodes, then prompts of 100 tokens of which so many are computed, due in that order."""
    core = batch_of([Running()] * (decodes + len(begun)), COST, policy=policy, **{
        "most_active": 8, "max_active_requests": 8, "most_tokens": 64, "token_budget": 64,
        "is_stock": 0, "mean_ttft_target_s": 2.0, **engine,
    })  # fmt: skip
    for row, computed in enumerate(begun, start=decodes):
        one = core.requests[row : row + 1]
        one["whole_prompt_tokens"] = one["start_tokens"] = 100
        one["computed_tokens"], one["prefilling"] = computed, 1
        one["deadline_s"] = 1000.0 + row
    return core


def running(core: Core) -> list[int]:
    found: list[int] = core.running[: core.engine["running"][0]].tolist()
    return found


def test_decodes_come_first_and_prompts_that_have_begun_by_key():
    core = core_with([30, 60, 90])
    core.requests["deadline_s"][2:5] = 1030.0, 1010.0, 1020.0
    core.running[:5] = 3, 0, 2, 1, 4
    plan(core)
    assert running(core) == [0, 1, 3, 4, 2]
    assert (core.engine["reordered"][0], core.engine["partial"][0]) == (1, 3)
    plan(core)
    assert running(core) == [0, 1, 3, 4, 2]
    assert core.engine["reordered"][0] == 0, "it stands as it should"


def test_stock_order_is_left_alone():
    core = core_with([30, 60], is_stock=1)
    core.running[:4] = 3, 0, 2, 1
    plan(core)
    assert (running(core), core.engine["reordered"][0]) == ([3, 0, 2, 1], 0)
    assert (core.engine["budget"][0], core.engine["max_active"][0]) == (64, 8)


def test_one_whose_admission_was_not_noted_is_neither_decode_nor_prompt():
    """It runs on, and no rule asks for figures that nobody knows."""
    core = core_with([30, 60], decodes=1, follow_slack=1, pace_decodes=1, kv_blocks=10_000)
    core.requests["active"][1] = 0
    core.requests["tpot_s"][:2] = 0.05
    plan(core)
    assert core.engine["partial"][0] == 1
    assert core.requests["decoding"][1] == 0
    assert core.requests["hidden"][1] == 0
    assert sorted(running(core)) == [0, 1, 2]


def test_as_many_prompts_may_begin_as_the_limit_says():
    core = core_with([30], max_partial_prefills=1)
    plan(core)
    assert core.engine["max_active"][0] == 8, "nobody waits, so nobody is held back"
    put(core, 9, 50.0, 10)
    plan(core)
    assert (core.engine["max_active"][0], core.engine["partial_held_steps"][0]) == (3, 1)
    core.engine["ready_elsewhere"], core.engine["silent"] = 1, 2
    plan(core)
    assert core.engine["max_active"][0] == 3 + 1 + 2, "with its remote KV, or silent: not held back"


@pytest.mark.parametrize("prompt", [20, 50])
def test_a_head_passes_prompts_of_higher_key_in_every_other_step(prompt):
    """A short one beside the first of them, a longer one instead of all."""
    core = core_with([30, 60], prefill_by_key=1, head_can_start=1)
    put(core, 9, 900.0, prompt)
    plan(core)
    hidden = core.requests["hidden"][:4].tolist()
    assert hidden == ([0, 0, 0, 1] if prompt == 20 else [0, 0, 1, 1])
    assert core.engine["threshold"][0] == (62 - 20 if prompt == 20 else 0)
    assert core.engine["max_active"][0] == 8 - sum(hidden)
    plan(core)
    assert not core.requests["hidden"][:4].any(), "nobody yields twice in a row"
    core.engine["head_can_start"] = 0
    plan(core)
    assert not core.requests["hidden"][:4].any()


def test_a_prompt_with_an_adapter_yields_to_nobody():
    core = core_with([30], prefill_by_key=1, head_can_start=1)
    core.requests["lora"][2] = 1
    put(core, 9, 900.0, 50)
    plan(core)
    assert (core.requests["hidden"][2], core.engine["yielded_prefills"][0]) == (0, 0)
    core.requests["lora"][2] = 0
    plan(core)
    assert (core.requests["hidden"][2], core.engine["yielded_prefills"][0]) == (1, 1)

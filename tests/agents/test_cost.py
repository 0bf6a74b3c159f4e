"""What asking costs, and a budget that holds in every window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmas_agents.agents.budget import HOUR_S, SHARE_WINDOW_S, Allowance, ModelBudget
from hmas_agents.agents.cost import Cost, runs_on_engine, step_seconds, tokens_of_text
from serving.contracts import CostCoefficients

SPENDINGS = st.lists(
    st.tuples(st.floats(0, 5000), st.floats(0, 500), st.floats(0, 1500)), max_size=40
)


@given(st.floats(1, 2000), SPENDINGS)
def test_no_window_holds_more_than_the_limit_and_the_last_overshoot(limit, steps):
    """Of every window: its sum less what its last spending took beyond its expectation."""
    allowance = Allowance(limit, HOUR_S)
    now_s, spent = 0.0, []
    for after_s, expected, cost in steps:
        now_s += after_s
        if allowance.room(now_s, expected):
            allowance.spend(now_s, cost)
            spent.append((now_s, cost, expected))
    for end_s in {at_s for at_s, _, _ in spent}:
        window = [c for at_s, c, _ in spent if end_s - HOUR_S < at_s <= end_s]
        here = [(c, e) for at_s, c, e in spent if at_s == end_s]
        overshoot = max(0.0, here[-1][0] - here[-1][1])
        assert sum(window) <= limit + overshoot + 1e-6


def test_there_is_room_again_once_the_window_has_passed():
    allowance = Allowance(100.0, 60.0)
    allowance.spend(0.0, 90.0)
    assert not allowance.room(59.0, 20.0)
    assert allowance.room(59.0, 10.0)
    assert allowance.room(60.0, 20.0)


def test_a_limit_of_zero_is_none_and_a_clock_that_went_back_starts_afresh():
    free, reset = Allowance(0.0, 60.0), Allowance(10.0, 60.0)
    free.spend(0.0, 1e9)
    reset.spend(1e9, 10.0)
    assert free.room(0.0, 1e9)
    assert reset.room(5.0, 10.0)


def test_the_next_decision_is_expected_to_cost_what_the_last_five_did():
    budget = ModelBudget(1000, 0.0)
    guess = Cost(400, 200)
    assert budget.expected(0.0, guess) == guess
    budget.spend(0.0, Cost(1000, 1000), 0.0)  # pushed out by the five after it
    for i in range(1, 6):
        budget.spend(float(i), Cost(100 * i, 10), 0.0)
    assert budget.expected(6.0, guess) == Cost(300, 10)


def test_dear_decisions_do_not_bar_the_model_for_good():
    budget = ModelBudget(1000, 0.0)
    budget.spend(0.0, Cost(5000, 0), 0.0)
    assert "max_tokens_per_hour 1000" in budget.refusal(10.0, budget.expected(10.0, Cost(9)), 0.0)
    assert budget.refusal(HOUR_S, budget.expected(HOUR_S, Cost(9)), 0.0) == ""


def test_step_time_is_bounded_over_ten_minutes():
    budget = ModelBudget(0, 0.1)
    budget.spend(0.0, Cost(), 0.1 * SHARE_WINDOW_S)
    assert "max_step_share 0.1" in budget.refusal(300.0, Cost(), 1.0)
    assert budget.refusal(SHARE_WINDOW_S, Cost(), 1.0) == ""


COEFFICIENTS = CostCoefficients(
    base_s=1.0, per_prefill_token_s=0.1, per_decode_s=0.01, per_context_token_s=0.001,
    per_square_s=0.0001,
)  # fmt: skip


def test_step_time_follows_the_engines_cost_model():
    # Prompt 10: 10*0.1 + 10*10/2*0.0001; reply 4: 4*(0.01 + 12*0.001); 5 steps of 1 s by two.
    assert step_seconds(Cost(10, 4), COEFFICIENTS, 1) == pytest.approx(1.005 + 0.088 + 2.5)
    assert step_seconds(Cost(), COEFFICIENTS, 0) == 0.0


def test_the_shares_of_all_requests_make_up_the_steps():
    """Ten alike, served side by side: together they take what their steps take."""
    ten = 10 * step_seconds(Cost(0, 50), CostCoefficients(0.006, 1e-5, 4e-5), 9)
    assert ten == pytest.approx(51 * 0.006 + 10 * 50 * 4e-5)


@pytest.mark.parametrize(
    ("base_url", "engine_url", "same"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", True),
        ("http://localhost:8000/v1", "http://127.0.0.1:8000/", True),
        ("http://[::1]:8000/v1", "http://localhost:8000", True),
        ("https://Engine.example/v1", "https://engine.example:443", True),
        ("http://127.0.0.1:8001/v1", "http://127.0.0.1:8000", False),
        ("http://other:8000/v1", "http://engine:8000", False),
        ("http://engine:bad/v1", "http://engine:8000", False),
        ("http://engine:8000/v1", "", False),
    ],
)
def test_whether_the_model_runs_on_the_engine_is_seen_from_host_and_port(
    base_url, engine_url, same
):
    assert runs_on_engine(base_url, engine_url, "auto") is same
    assert runs_on_engine(base_url, engine_url, True)
    assert not runs_on_engine(base_url, engine_url, False)


def test_text_is_estimated_at_four_characters_a_token():
    assert [tokens_of_text(text) for text in ("", "a", "abcd", "abcde")] == [0, 1, 1, 2]

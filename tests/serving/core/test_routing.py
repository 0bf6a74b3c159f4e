"""Does an engine say truly what it owes, and does a router choose by it as a plain loop would?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from serving.contracts.state import WITHIN_S, RoutingHint
from serving.core import routing
from serving.core.control import prefill_rate
from tests.serving.core.samples import MAX_WAIT_S, core_of, put, step_begins

RATE = 1e-4  # seconds per prompt token, as a new core has it
seconds = st.floats(0.0, 100.0)
hints_of = st.lists(
    st.tuples(st.lists(seconds, min_size=10, max_size=10), st.floats(1e-6, 1e-3), seconds),
    min_size=1, max_size=5,
)  # fmt: skip


def looked(core, now_s=0.0):
    hints = np.zeros(2, routing.HINT)
    routing.look(core, hints, 1, now_s)
    assert not hints["prefill_due_s"][0].any()
    return hints[1]


def table(rows, known_s=0.0):
    hints = np.zeros(len(rows), routing.HINT)
    for k, (due_s, per_token_s, step_s) in enumerate(rows):
        hint = RoutingHint(tuple(np.sort(due_s).tolist()), per_token_s, step_s)
        routing.take_in(hints, k, hint, known_s)
    return hints


def test_what_waits_is_owed_by_when_it_is_due_and_hopeless_ones_come_last():
    core = core_of("edf", RATE, demotes=1)
    assert prefill_rate(core) == pytest.approx(RATE)
    put(core, 0, 0.4, 1000)
    put(core, 1, 3.0, 5000)
    put(core, 2, math.inf, 7000)
    put(core, 3, 0.1, 9000)  # takes 0.9 s
    step_begins(core, 0.0)
    due_s = dict(zip((*WITHIN_S, math.inf), looked(core)["prefill_due_s"], strict=True))
    assert [due_s[within] for within in (0.25, 0.5, 2.0, 4.0, 64.0, math.inf)] == pytest.approx(
        [0.0, 0.1, 0.1, 0.6, 0.6, 2.2]
    )
    # Two seconds later the second one is due within one.
    assert looked(core, 2.0)["prefill_due_s"][2] == pytest.approx(0.6)


def test_who_has_waited_too_long_and_who_has_begun_come_before_all():
    core = core_of("edf", RATE, demotes=1)
    put(core, 0, math.inf, 1000)
    put(core, 1, math.inf, 3000, arrival_s=2 * MAX_WAIT_S)
    step_begins(core, 2 * MAX_WAIT_S)
    core.engine["running"], core.running[0], core.running[1] = 2, 5, 6
    core.requests["prefilling"][5], core.requests["start_tokens"][5] = 1, 2500
    core.requests["computed_tokens"][5:7] = 500, 4000
    hint = looked(core)
    assert hint["prefill_due_s"][0] == pytest.approx(0.3)
    assert hint["prefill_due_s"][-1] == pytest.approx(0.6)
    cost = core.cost[0]
    assert hint["decode_step_s"] == pytest.approx(
        cost["base_s"] + cost["per_decode_s"] + 4000 * cost["per_context_token_s"]
    )


def expected(hint, tokens, target_s, past_s, per_token_s):
    place = next((i for i, within in enumerate(WITHIN_S) if target_s <= within), len(WITHIN_S))
    own_s = tokens * hint["prefill_s_per_token"]
    after_s = max(0.0, hint["prefill_due_s"][place] - past_s) + hint["decode_step_s"] + own_s
    return after_s, after_s + routing.OWN * tokens * per_token_s


@hypothesis_settings(deadline=None)
@given(hints_of, st.data(), st.one_of(seconds, st.just(math.inf)), seconds)
def test_the_cheapest_in_time_is_chosen_and_of_all_if_none_is(rows, data, target_s, past_s):
    hints = table(rows)
    tokens = np.array(
        data.draw(st.lists(st.floats(1, 1e5), min_size=len(rows), max_size=len(rows)))
    )
    chosen = routing.choose(hints, tokens, target_s, past_s, data.draw(st.integers(0, 9)))
    mean_s = hints["prefill_s_per_token"].mean()
    each = list(zip(hints, tokens, strict=True))
    by_target = [expected(*one, target_s, past_s, mean_s) for one in each]
    if any(after_s <= target_s for after_s, _ in by_target):
        assert by_target[chosen][0] <= target_s
        least = min(cost_s for after_s, cost_s in by_target if after_s <= target_s)
        assert by_target[chosen][1] == pytest.approx(least)
    else:
        in_the_end = [expected(*one, math.inf, past_s, mean_s) for one in each]
        assert in_the_end[chosen][1] == pytest.approx(min(cost_s for _, cost_s in in_the_end))


def test_an_engine_that_takes_itself_for_a_little_faster_does_not_get_everything():
    hints = table([([0.0] * 10, RATE, 0.01), ([0.0] * 10, 0.8 * RATE, 0.01)])
    turns = []
    for _ in range(4):
        turns.append(routing.choose(hints, np.full(2, 9_000.0), math.inf, 0.0, 0))
        routing.sent(hints, turns[-1], 9_000.0, math.inf, 0.0)
    assert turns == [1, 0, 1, 0]


def test_equal_engines_take_turns():
    hints = table([([0.0] * 10, RATE, 0.01)] * 3)
    turns = [routing.choose(hints, np.full(3, 9.0), 1.0, 0.0, first) for first in range(6)]
    assert turns == [0, 1, 2, 0, 1, 2]


@hypothesis_settings(deadline=None)
@given(hints_of, seconds, st.floats(1, 1e5), st.one_of(seconds, st.just(math.inf)))
def test_what_is_sent_comes_before_those_due_later_and_time_takes_off_what_is_owed(
    rows, past_s, tokens, target_s
):
    hints = table(rows)
    before, per_token_s = hints[0]["prefill_due_s"].copy(), hints[0]["prefill_s_per_token"]
    others = hints[1:].copy()
    routing.sent(hints, 0, tokens, target_s, past_s)
    owed = np.maximum(0.0, before - past_s)
    owed += tokens * per_token_s * (np.array((*WITHIN_S, math.inf)) >= target_s)
    assert hints[0]["prefill_due_s"] == pytest.approx(owed)
    assert hints[0]["known_s"] == past_s
    assert (hints[1:] == others).all()


def test_a_hint_is_the_same_on_the_other_side():
    hints = table([(list(range(10)), RATE, 0.02)])
    again = np.zeros(1, routing.HINT)
    routing.take_in(again, 0, routing.hint_of(hints[0]), 7.0)
    assert again["known_s"][0] == 7.0
    again["known_s"] = 0.0
    assert (again == hints).all()

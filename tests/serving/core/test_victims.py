"""Are the victims of full KV caches those whose loss costs least?"""

import math
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.core.state import Core
from serving.core.victims import DWELL_S, SPARED_TOKENS, loss, order_victims
from tests.serving.core.samples import Running, batch_of

NOW_S, BLOCK = 1000.0, 16


class Victim(NamedTuple):
    """A running request, as a possible victim."""

    promised: bool = True
    preempted_s: float = -math.inf
    remaining: float = 100.0
    computed: int = 160


victims = st.tuples(
    st.booleans(), st.floats(NOW_S - 60, NOW_S) | st.just(-math.inf), st.floats(-50, 2000),
    st.integers(0, 16_000),
).map(lambda each: Victim(*each))  # fmt: skip


def core_of(candidates: list[Victim]) -> Core:
    core = batch_of([Running()] * len(candidates), CostCoefficients(0.01, 1e-4, 1e-4))
    core.groups[:] = (BLOCK, math.inf)
    core.engine["now_s"] = NOW_S
    for row, one in enumerate(candidates):
        core.requests["tpot_s"][row] = 1.0 if one.promised else math.inf
        core.requests["deadline_s"][row] = math.inf
        core.requests["preempted_s"][row] = one.preempted_s
        core.requests["expected_tokens"][row] = one.remaining
        core.requests["computed_tokens"][row] = one.computed
    return core


def losses(candidates: list[Victim]) -> list[tuple[float, ...]]:
    core, found = core_of(candidates), []
    for row in range(len(candidates)):
        loss(core, row)
        found.append(tuple(core.ranks[row, :5].tolist()))
    return found


def test_the_order_by_hand():
    candidates = {
        "usual": Victim(),
        "again": Victim(preempted_s=NOW_S - 1.0, promised=False),
        "lost": Victim(promised=False),
        "nearly_done": Victim(remaining=3.0),
        "lost_but_nearly_done": Victim(promised=False, remaining=3.0),
        "half_empty_block": Victim(computed=150),
        "shorter": Victim(computed=80),
    }
    by_loss = zip(losses(list(candidates.values())), candidates, strict=True)
    order = [name for _, name in sorted(by_loss, reverse=True)]
    assert order == [
        "lost", "lost_but_nearly_done", "half_empty_block", "shorter", "usual", "nearly_done",
        "again",
    ]  # fmt: skip


def test_one_that_is_late_for_its_first_token_is_lost_and_one_that_has_it_is_not():
    core = core_of([Victim(), Victim()])
    core.requests["deadline_s"][:2] = NOW_S - 1.0
    core.requests["first_token_s"][1] = NOW_S - 2.0
    for row in range(2):
        loss(core, row)
    assert core.ranks[:2, 1].tolist() == [1.0, 0.0]


@settings(deadline=None)
@given(one=victims, other=victims)
def test_each_rule_outranks_those_below_it(one, other):
    first, second = losses([one, other])
    if first <= second:
        one, other = other, one
    rested, other_rested = (NOW_S - each.preempted_s >= DWELL_S for each in (one, other))
    assert rested or not other_rested, "one within the dwell is taken last"
    if rested != other_rested:
        return
    assert not one.promised or other.promised
    if one.promised != other.promised:
        return
    far, other_far = one.remaining > SPARED_TOKENS, other.remaining > SPARED_TOKENS
    assert far or not other_far, "one that is nearly finished is spared"
    if far == other_far:
        per_token, other_per_token = (
            math.ceil(each.computed / BLOCK) / max(1, each.computed) for each in (one, other)
        )
        assert per_token >= other_per_token


@settings(deadline=None)
@given(victim=victims)
def test_a_loss_has_an_order_whatever_the_request(victim):
    assert not any(math.isnan(part) for part in losses([victim])[0])


def test_only_the_next_victims_change_their_place_and_those_within_the_dwell():
    """An eighth of the batch, the cheapest last; the rest keeps the policy's order."""
    usual = [Victim(computed=160 + 16 * i) for i in range(13)]
    again, cheap, cheapest = (
        Victim(preempted_s=NOW_S - 1.0), Victim(computed=80), Victim(computed=64)
    )
    core = core_of([cheapest, *usual[:6], cheap, *usual[6:], again])
    core.engine["free_blocks"] = 10**9
    order_victims(core)
    assert (core.running[:16].tolist(), core.engine["reordered"][0]) == (list(range(16)), 0)
    core.engine["free_blocks"] = 3
    order_victims(core)
    rest = [row for row in range(1, 15) if row != 7]
    assert core.running[:16].tolist() == [15, *rest, 7, 0]
    assert (core.engine["reordered"][0], core.engine["would_be"][0]) == (1, 15)

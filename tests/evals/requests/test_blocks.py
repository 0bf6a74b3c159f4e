"""Do seeds replay disjoint blocks of their half, and are too many of them refused?"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.blocks import block_start_s, half_of, place
from evals.requests.trace import WorkloadError
from evals.suite.traffic_spec import Half

HALVES: tuple[Half, ...] = ("development", "test")


@given(
    from_s=st.floats(0, 1e5), length_s=st.floats(1, 1e4), blocks=st.integers(1, 60),
    rest=st.floats(0, 0.99), half=st.sampled_from(HALVES),
)  # fmt: skip
def test_blocks_are_disjoint_and_inside_their_half(from_s, length_s, blocks, rest, half):
    within_s = half_of(from_s, from_s + 2 * length_s * (blocks + rest), half)
    starts_s = sorted(
        block_start_s("t", within_s, length_s, blocks, seed) for seed in range(blocks)
    )
    assert starts_s[0] >= within_s[0] - 1e-6
    assert starts_s[-1] + length_s <= within_s[1] + 1e-3
    gaps_s = [b - a for a, b in pairwise(starts_s)]
    assert all(gap_s >= length_s * (1 - 1e-9) - 1e-6 for gap_s in gaps_s)


@given(from_s=st.floats(0, 1e5), span_s=st.floats(1, 1e6))
def test_halves_never_overlap_and_are_all_of_it(from_s, span_s):
    until_s = from_s + span_s
    development, test = (half_of(from_s, until_s, half) for half in HALVES)
    assert development[1] == test[0]
    assert (development[0], test[1]) == half_of(from_s, until_s, "any") == (from_s, until_s)


def test_a_few_seeds_are_spread_over_the_half():
    taken = sorted(place(seed, 1000) for seed in range(20))
    gaps = [b - a for a, b in zip(taken, [*taken[1:], taken[0] + 1000], strict=True)]
    assert max(gaps) < 3 * 1000 / 20
    assert [place(0, 1), place(1, 2), place(0, 2)] == [0, 1, 0]


def test_blocks_in_which_nobody_sends_are_left_out():
    def is_sent(from_s, until_s):
        return (from_s, until_s) not in ((600.0, 1200.0), (1200.0, 1800.0))

    starts_s = {block_start_s("t", (0.0, 3000.0), 600.0, 3, seed, is_sent) for seed in range(3)}
    assert starts_s == {0.0, 1800.0, 2400.0}
    with pytest.raises(WorkloadError, match=r"4 seeds are asked for, and .* has 3 blocks"):
        block_start_s("t", (0.0, 3000.0), 600.0, 4, 0, is_sent)


def test_more_seeds_than_blocks_are_refused_with_both_numbers():
    with pytest.raises(WorkloadError, match=r"t: 8 seeds are asked for, and .* has 7 blocks"):
        block_start_s("t", (0.0, 4500.0), 600.0, 8, 0)
    assert block_start_s("t", (0.0, 4500.0), 600.0, 7, 0) == 0.0

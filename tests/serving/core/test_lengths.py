"""Do histograms in arrays keep to their groups, and are they the same from both sides?"""

import math
import random
from typing import Any

import numpy as np
import pytest

from serving.core import lengths as core
from serving.core.jit import compiled_in_place
from serving.core.lengths import BINS, MAX_HISTOGRAMS
from serving.perception.length_model import LengthModel


def test_a_bin_begins_where_the_power_is_reached_exactly():
    tokens, expected = 1, 0
    while tokens < 50_000:
        while expected < BINS - 1 and 5 ** (expected + 1) <= tokens * 4 ** (expected + 1):
            expected += 1
        assert core.length_bin(tokens) == expected, tokens
        tokens += 1
    assert [core.length_bin(tokens) for tokens in (-7, 0, 10**12)] == [0, 0, BINS - 1]


def test_groups_are_told_apart_by_tenant_and_by_powers_of_four():
    groups = {
        (tenant, prompt, most): core.group_of(tenant, prompt, most)
        for tenant in (0, 1, 700)
        for prompt in (1, 5, 20, 60, 250, 1000, 4000, 14_000)
        for most in (1, 5, 20, 60, 250, 1000, 4000, 14_000)
    }
    assert len(set(groups.values())) == len(groups)
    assert core.group_of(3, 300, 900) == core.group_of(3, 310, 910)


class Literal:
    """The last MAX_HISTOGRAMS groups that came, with what each of their answers weighs now."""

    def __init__(self) -> None:
        self.groups: dict[int, np.ndarray] = {}
        self.everybody = np.zeros(BINS)

    def learn(self, group: int, tokens: int) -> None:
        if group not in self.groups:
            if len(self.groups) == MAX_HISTOGRAMS:
                del self.groups[next(iter(self.groups))]
            self.groups[group] = np.zeros(BINS)
        for counts in (self.groups[group], self.everybody):
            np.multiply(counts, 0.5 ** (1 / 500), out=counts)
            counts[core.length_bin(tokens)] += 1

    def knows(self, group: int) -> bool:
        return group in self.groups and self.groups[group].sum() >= 8 - 1e-9

    def median(self, group: int) -> float:
        counts = self.groups[group] if self.knows(group) else self.everybody
        if counts.sum() < 8 - 1e-9:
            return math.inf
        return float(1.25 ** (1 + np.searchsorted(np.cumsum(counts), 0.501 * counts.sum())))


@pytest.mark.parametrize("stride", [1, 7, 1021], ids=["close", "apart", "one chain"])
def test_each_group_goes_by_its_own_histogram_while_it_is_among_the_last(stride):
    rng = random.Random(stride)
    arrays, literal = core.new_lengths(), Literal()
    for turn in range(12_000):
        # Groups come and go: a window over their numbers moves on, and sometimes one returns.
        group = stride * (turn // 10 + rng.randrange(40) - 500 * (rng.random() < 0.05) + 500)
        tokens = 1 + group * 37 % 2000
        core.learn(*arrays, group, tokens)
        literal.learn(group, tokens)
        for asked in (group, stride * rng.randrange(turn // 10 + 600)):
            assert core.quantile(*arrays, asked, 0.501) == pytest.approx(literal.median(asked))
        if literal.knows(group):  # all its answers are alike
            _, q90 = core.predicted(*arrays, group)
            assert core.length_bin(int(q90)) - core.length_bin(tokens) in (0, 1)
    assert len(literal.groups) == MAX_HISTOGRAMS


@compiled_in_place
def learn_all(lengths: Any, histograms: Any, answers: Any, means: Any) -> None:
    for i in range(len(answers)):
        tenant, prompt, most, tokens = answers[i]
        group = core.group_of(tenant, prompt, most)
        means[i] = core.predicted(lengths, histograms, group)[0]
        core.learn(lengths, histograms, group, tokens)


def test_a_compiled_loop_learns_and_predicts_bit_for_bit_what_python_does():
    rng = np.random.default_rng(5)
    answers = np.column_stack([
        rng.integers(0, 30, 5000), rng.integers(1, 9000, 5000), rng.integers(1, 4000, 5000),
        rng.lognormal(5, 1, 5000).astype(int),
    ])  # fmt: skip
    model, arrays, means = LengthModel(), core.new_lengths(), np.empty(5000)
    learn_all(*arrays, answers, means)
    for (tenant, prompt, most, tokens), mean in zip(answers.tolist(), means, strict=True):
        group = model.group(f"t{tenant}", prompt, most)
        assert model.predicted(group)[0] == mean
        model.learn(group, tokens)
    assert arrays[0]["covered"] == model.arrays[0]["covered"]
    for name in ("counts", "total", "mean_tokens", "q90_tokens"):
        assert np.array_equal(arrays[1][name], model.arrays[1][name])

"""What do several seeds say together? Means with t intervals, arms compared in pairs.

Arms see the same arrivals under one seed, so two arms are compared pair by pair.
`tests/evals/result/test_coverage.py` counts how often the intervals hold the truth. Called by
`hmas eval compare` and the reports.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure from `n` seeds and its 95% interval; with n = 1 both ends are the figure."""

    mean: float
    low: float
    high: float
    n: int

    def excludes(self, value: float) -> bool:
        """Whether the interval lies wholly on one side of `value`; n = 1 has only its figure."""
        return not self.low <= value <= self.high

    def text(self, form: str = "{:.2f}") -> str:
        """`1.20 (1.10 to 1.31, n=5)`, each number in `form`."""
        if self.n == 1:
            return f"{form.format(self.mean)} (n=1)"
        low, high = form.format(self.low), form.format(self.high)
        return f"{form.format(self.mean)} ({low} to {high}, n={self.n})"


def mean_interval(values: ArrayLike) -> Interval:
    """The mean over seeds and Student's t interval.

    Raises:
        ValueError: no values.
    """
    seen = np.asarray(values, float)
    if not seen.size:
        raise ValueError("no values: nothing to take a mean of")
    mean, n = float(seen.mean()), seen.size
    half = _t(n) * float(seen.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(base: ArrayLike, other: ArrayLike) -> Interval:
    """Mean of other - base and its t interval; both are in the order of the same seeds.

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    a, b = _pairs(base, other)
    return mean_interval(b - a)


def paired_p(base: ArrayLike, other: ArrayLike) -> float | None:
    """Two-sided p of the paired t test that both have the same mean; None with one seed.

    It is below 0.05 where `paired_difference` excludes 0, and only there.

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    a, b = _pairs(base, other)
    if a.size < 2:
        return None
    if not np.ptp(b - a):  # without any scatter the test's statistic is 0/0 or infinite
        return float(a[0] == b[0])
    return float(stats.ttest_rel(b, a).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p of many tests: if nothing differs, chance puts any below 0.05 in 5% of cases.

    None, of what was not tested, stays None and is not counted. Source: Holm, A simple
    sequentially rejective multiple test procedure (1979).
    """
    p = np.array([each for each in p_values if each is not None], float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    steps = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted[order] = np.minimum(1.0, steps)
    left = iter(adjusted.tolist())
    return [None if each is None else next(left) for each in p_values]


def paired_ratio(base: ArrayLike, other: ArrayLike) -> Interval | None:
    """Mean of other over mean of base, neither below 0; Fieller's interval. None if base is 0.

    A ratio of means and not a mean of ratios: one seed with little base can't rule it. The
    interval has no upper end (infinity) where the base may as well be 0. Bootstrap intervals
    (percentile and BCa) were too narrow for 5 or 20 skewed pairs.

    Source: Fieller, Some problems in interval estimation (1954).

    Raises:
        ValueError: no values, or not as many of one as of the other.
    """
    a, b = _pairs(base, other)
    n = a.size
    if not a.any():
        return None
    ratio = float(b.mean() / a.mean())
    if n == 1:
        return Interval(ratio, ratio, ratio, 1)
    (aa, ab), (_, bb) = np.cov(a, b) * (_t(n) ** 2 / n)
    # The ends solve (mean b - r mean a)^2 = t^2 var(mean b - r mean a) for r.
    square, linear, rest = a.mean() ** 2 - aa, a.mean() * b.mean() - ab, b.mean() ** 2 - bb
    if square <= 0:
        return Interval(ratio, 0.0, math.inf, n)
    root = math.sqrt(max(0.0, linear**2 - square * rest))
    low, high = (linear - root) / square, (linear + root) / square
    return Interval(ratio, max(0.0, float(low)), float(high), n)


def _pairs(base: ArrayLike, other: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(base, float), np.asarray(other, float)
    if a.shape != b.shape:
        raise ValueError(f"{a.size} values against {b.size}: they are no pairs")
    if not a.size:
        raise ValueError("no values: nothing to take a mean of")
    return a, b


@cache
def _t(n: int) -> float:
    """The t quantile of a mean of `n` values, 2 or more."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))

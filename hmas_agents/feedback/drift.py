"""Has the traffic changed? Statistics with known false-alarm behaviour.

Pure functions, and the little state that a running alarm needs. Used by the long state.
"""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

# Empty bins replayed after a silence; more of them would change nothing.
MAX_SILENT_BINS = 64
# Fewer observations than this on either side say nothing about a distribution.
MIN_SAMPLE = 50
MAX_CATEGORIES = 16

K = TypeVar("K", bound=Hashable)


def cusum(high: float, low: float, z: float, drift: float) -> tuple[float, float]:
    """One step of the two-sided tabular CUSUM.

    S+ = max(0, S+ + z - k), S- = max(0, S- - z - k), for a standardised observation z and
    an allowance k (Page, Biometrika 1954; Montgomery, Introduction to Statistical Quality
    Control, ch. 9). With k = 0.5 and an alarm at 5, normal data alarm once in 465 steps.
    """
    return max(0.0, high + z - drift), max(0.0, low - z - drift)


def psi(reference: Mapping[K, int], recent: Mapping[K, int]) -> float:
    """Population stability index: sum over bins of (p - q) * ln(p / q).

    p and q are the bins' shares in `recent` and `reference`, with half a count added to
    each bin so that an empty one stays finite (Siddiqi, Credit Risk Scorecards, 2006,
    reads 0.1 as a small and 0.25 as a large shift). 0 when either side is empty.
    """
    bins = reference.keys() | recent.keys()
    n, m = sum(reference.values()), sum(recent.values())
    if not n or not m:
        return 0.0
    terms = []
    for key in bins:
        q = (reference.get(key, 0) + 0.5) / (n + 0.5 * len(bins))
        p = (recent.get(key, 0) + 0.5) / (m + 0.5 * len(bins))
        terms.append((p - q) * math.log(p / q))
    return math.fsum(terms)


def psi_noise(bins: int, n: int, m: int) -> tuple[float, float]:
    """Mean and 99th percentile of the PSI of two samples of one distribution.

    PSI is then about (1/n + 1/m) * chi^2 with bins - 1 degrees of freedom (Yurdakul, 2018);
    the quantile is Wilson and Hilferty's (1931).
    """
    free = bins - 1
    if free < 1 or not n or not m:
        return 0.0, 0.0
    scale = 1 / n + 1 / m
    spread = 2 / (9 * free)
    return scale * free, scale * free * (1 - spread + 2.326 * math.sqrt(spread)) ** 3


def shift(reference: Iterable[Hashable], recent: Iterable[Hashable]) -> tuple[float, bool]:
    """PSI beyond what chance explains, and whether it is significant at 1%.

    Takes observations, or a Counter of them. Rare categories are pooled. (0, False) where a
    side has under MIN_SAMPLE observations.
    """
    before, after = Counter(reference), Counter(recent)
    pooled = before + after
    kept = {key for key, _ in pooled.most_common(MAX_CATEGORIES)}
    before = Counter({k: v for k, v in before.items() if k in kept} | _rest(before, kept))
    after = Counter({k: v for k, v in after.items() if k in kept} | _rest(after, kept))
    n, m = before.total(), after.total()
    if min(n, m) < MIN_SAMPLE:
        return 0.0, False
    mean, p99 = psi_noise(len(before.keys() | after.keys()), n, m)
    value = psi(before, after)
    return max(0.0, value - mean), value > p99


def _rest(counts: Counter[Hashable], kept: set[Hashable]) -> dict[Hashable, int]:
    rest = sum(v for k, v in counts.items() if k not in kept)
    return {("other categories",): rest} if rest else {}


def length_bin(tokens: int) -> int:
    """The log2 bin of a length: 0 for 0, else floor(log2) + 1."""
    return max(0, int(tokens)).bit_length()


def dispersion(arrivals_s: Sequence[float], from_s: float, until_s: float, bin_s: float) -> float:
    """Index of dispersion of counts: variance over mean of arrivals per bin.

    1 for Poisson arrivals, above for bursts, below for regular ones (Cox and Lewis, 1966;
    Gusella, IEEE JSAC 1991). Whole bins only, counted back from `until_s`; NaN where there
    are fewer than 4 bins or no arrivals in them.
    """
    bins = int((until_s - from_s) / bin_s + 1e-9)
    if bins < 4:
        return math.nan
    counts = [0] * bins
    for at_s in arrivals_s:
        index = int((until_s - at_s) // bin_s)
        if 0 <= index < bins:
            counts[index] += 1
    mean = sum(counts) / bins
    if mean == 0:
        return math.nan
    return sum((count - mean) ** 2 for count in counts) / (bins - 1) / mean


@dataclass(slots=True)
class RateAlarm:
    """CUSUM on arrivals per bin, against a level learned from the bins before.

    The level and variance are exponential means over about 12 bins; the variance is at
    least Poisson's, so bursty traffic raises its own bar. After an alarm both are learned
    anew: the new rate is the new normal. `fired` names the direction for the bin after.
    """

    bin_s: float
    threshold: float
    drift: float
    start_s: float | None = None
    count: int = 0
    bins: int = 0
    level: float = 0.0
    variance: float = 0.0
    high: float = 0.0
    low: float = 0.0
    fired: Literal["", "rate_up", "rate_down"] = field(default="")

    def arrive(self, at_s: float) -> None:
        """Count an arrival; a late one counts in the open bin."""
        if self.start_s is None or at_s >= self.start_s + self.bin_s:
            self.advance(at_s)
        self.count += 1

    def advance(self, now_s: float) -> None:
        """Close every bin that ends at or before `now_s`."""
        if self.start_s is None:
            self.start_s = now_s
            return
        behind = int((now_s - self.start_s) / self.bin_s)
        for _ in range(min(behind, MAX_SILENT_BINS)):
            self._close()
        if behind > 0:
            self.start_s += behind * self.bin_s

    def _close(self) -> None:
        count, self.count, self.fired = self.count, 0, ""
        if self.bins >= 3:
            z = (count - self.level) / math.sqrt(max(self.variance, self.level, 1.0))
            self.high, self.low = cusum(self.high, self.low, z, self.drift)
            if max(self.high, self.low) > self.threshold:
                self.fired = "rate_up" if self.high > self.low else "rate_down"
                self.high = self.low = 0.0
                self.bins = 0
        self.bins += 1
        gain = max(1 / self.bins, 1 / 12)
        error = count - self.level
        self.level += gain * error
        # The first bin after a (re)start has no deviation to learn from.
        self.variance = 0.0 if self.bins == 1 else (1 - gain) * (self.variance + gain * error**2)

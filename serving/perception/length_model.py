"""How many tokens will an answer still have? Decayed histograms of what was seen.

One histogram of output lengths per (tenant, prompt-length bin, max_tokens bin), in
logarithmic bins; counts halve every `HALF_LIFE` answers. The mean residual life
E[L - g | L > g] predicts the rest of a running answer (after TRAIL, 2410.01035).
"""

import math

import numpy as np

BINS = 48
_BASE = 1.25  # bin i holds lengths in [1.25^i, 1.25^(i+1))
HALF_LIFE = 500.0
_DECAY = 0.5 ** (1.0 / HALF_LIFE)
_ENOUGH = 8.0
_MIDDLES = _BASE ** (np.arange(BINS) + 0.5)
DEFAULT_TOKENS = 128.0
MAX_HISTOGRAMS = 512

Group = tuple[str, int, int]


def length_bin(tokens: int) -> int:
    """Index of the logarithmic bin of a length (0 for lengths up to 1)."""
    return min(BINS - 1, max(0, int(math.log(max(tokens, 1), _BASE))))


class LengthModel:
    """Predicts output lengths from finished answers; memory is bounded.

    Attributes:
        coverage: share of answers (EWMA) that stayed below their predicted q90,
            0.9 when healthy; None until enough answers were seen.
    """

    def __init__(self) -> None:
        self._by_group: dict[Group, np.ndarray] = {}
        self._all = np.zeros(BINS)
        self._seen = 0
        self._covered = 0.9

    @property
    def coverage(self) -> float | None:
        """Share of answers below their predicted q90."""
        return self._covered if self._seen >= 50 else None

    @staticmethod
    def group(tenant: str, prompt_tokens: int, max_tokens: int) -> Group:
        """Which histogram a request belongs to (coarse: powers of about 4)."""
        return tenant, length_bin(prompt_tokens) // 6, length_bin(max_tokens) // 6

    def learn(self, group: Group, output_tokens: int) -> None:
        """Take in one finished answer."""
        if output_tokens <= 0:
            return
        counts = self._by_group.get(group)
        if counts is not None and counts.sum() >= _ENOUGH:
            covered = output_tokens <= self.quantile(group, 0.9)
            self._covered += 0.02 * (covered - self._covered)
            self._seen += 1
        if counts is None:
            if len(self._by_group) >= MAX_HISTOGRAMS:
                self._by_group.pop(next(iter(self._by_group)))
            counts = self._by_group[group] = np.zeros(BINS)
        for histogram in (counts, self._all):
            np.multiply(histogram, _DECAY, out=histogram)
            histogram[length_bin(output_tokens)] += 1.0

    def remaining(self, group: Group, generated: int, max_tokens: int) -> float:
        """E[L - generated | L > generated] in tokens, between 1 and what max_tokens allows."""
        room = max(1.0, float(max_tokens - generated))
        counts = self._counts(group)
        if counts is None:
            return min(room, max(1.0, DEFAULT_TOKENS - generated))
        start = length_bin(generated) if generated > 0 else 0
        tail = counts[start:]
        total = tail.sum()
        if total < 1e-6:  # longer than anything seen: expect as much again
            return min(room, max(1.0, float(generated)))
        rest = float((tail * np.maximum(_MIDDLES[start:] - generated, 1.0)).sum() / total)
        return min(room, max(1.0, rest))

    def quantile(self, group: Group, q: float) -> float:
        """Upper edge in tokens of the bin that holds quantile `q` of the lengths."""
        counts = self._counts(group)
        if counts is None:
            return math.inf
        index = int(np.searchsorted(np.cumsum(counts), q * counts.sum()))
        return float(_BASE ** (min(index, BINS - 1) + 1))

    def _counts(self, group: Group) -> np.ndarray | None:
        counts = self._by_group.get(group)
        if counts is not None and counts.sum() >= _ENOUGH:
            return counts
        return self._all if self._all.sum() >= _ENOUGH else None

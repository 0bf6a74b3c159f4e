"""How many tokens will an answer still have? Decayed histograms of what was seen.

One histogram of output lengths per (tenant, prompt-length bin, max_tokens bin), in
logarithmic bins; counts halve every `HALF_LIFE` answers. The mean residual life
E[L - g | L > g] predicts the rest of a running answer (after TRAIL, 2410.01035).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from serving.perception.stored import stored_array, stored_number

BINS = 48
_BASE = 1.25  # bin i holds lengths in [1.25^i, 1.25^(i+1))
HALF_LIFE = 500.0
_DECAY = 0.5 ** (1.0 / HALF_LIFE)
_ENOUGH = 8.0
_LARGEST_COUNT = 1.0 / (1.0 - _DECAY)  # what a decayed count grows to
_MIDDLES = _BASE ** (np.arange(BINS) + 0.5)
DEFAULT_TOKENS = 128.0
MAX_HISTOGRAMS = 512
_KEEP = 64
_UNBOUNDED = 10**9

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
        self._predicted: dict[Group, tuple[float, float, int]] = {}
        self._learned = 0

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
            covered = output_tokens <= self.predicted(group)[1]
            self._covered += 0.02 * (covered - self._covered)
            self._seen += 1
        if counts is None:
            if len(self._by_group) >= MAX_HISTOGRAMS:
                self._by_group.pop(next(iter(self._by_group)))
            counts = self._by_group[group] = np.zeros(BINS)
        self._learned += 1
        for histogram in (counts, self._all):
            np.multiply(histogram, _DECAY, out=histogram)
            histogram[length_bin(output_tokens)] += 1.0

    def predicted(self, group: Group) -> tuple[float, float]:
        """Mean and q90 of a new answer's length, not bounded by max_tokens.

        At most `_KEEP` answers old, because every arrival asks.
        """
        found = self._predicted.get(group)
        if found is None or self._learned >= found[2]:
            mean, q90 = self.remaining(group, 0, _UNBOUNDED), self.quantile(group, 0.9)
            # Few answers change a prediction much, many do not.
            found = mean, q90, self._learned + min(_KEEP, 1 + self._learned // 8)
            if len(self._predicted) >= MAX_HISTOGRAMS:
                self._predicted.clear()
            self._predicted[group] = found
        return found[:2]

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

    def state(self) -> dict[str, Any]:
        """A copy of what was learned, for `restore`: n groups, their counts (n, BINS)."""
        return {
            "groups": [list(group) for group in self._by_group],
            "counts": np.array(list(self._by_group.values())).reshape(-1, BINS),
            "all": self._all.copy(),
            "seen": self._seen,
            "covered": self._covered,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` holds, or nothing of it.

        Raises:
            ValueError: names the entry that does not fit.
        """
        stored = state.get("groups")
        if not isinstance(stored, list):
            raise ValueError("groups is not a list")  # noqa: TRY004  one error for a file that does not fit
        groups = [_stored_group(group) for group in stored]
        if len(set(groups)) != len(groups) or len(groups) > MAX_HISTOGRAMS:
            raise ValueError(f"groups must differ, and be at most {MAX_HISTOGRAMS}")
        shape = (len(groups), BINS)
        counts = stored_array(state, "counts", shape, largest=_LARGEST_COUNT)
        everybody = stored_array(state, "all", (BINS,), largest=_LARGEST_COUNT)
        seen = int(stored_number(state, "seen", 0, 2**62))
        covered = stored_number(state, "covered", 0.0, 1.0)
        self._by_group = {group: row.copy() for group, row in zip(groups, counts, strict=True)}
        self._all, self._seen, self._covered = everybody, seen, covered
        self._predicted.clear()

    def _counts(self, group: Group) -> np.ndarray | None:
        counts = self._by_group.get(group)
        if counts is not None and counts.sum() >= _ENOUGH:
            return counts
        return self._all if self._all.sum() >= _ENOUGH else None


def _stored_group(group: Any) -> Group:
    match group:
        case [str(tenant), int(prompt_bin), int(most_bin)] if 0 < len(tenant) <= 64:
            if 0 <= prompt_bin < BINS and 0 <= most_bin < BINS:
                return tenant, prompt_bin, most_bin
    raise ValueError(f"groups holds {str(group)[:80]!r}: not a tenant (64 characters) and 2 bins")

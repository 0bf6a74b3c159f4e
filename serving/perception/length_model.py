"""How many tokens will an answer still have? Decayed histograms of what was seen.

One histogram of output lengths per (tenant, prompt-length bin, max_tokens bin), in
logarithmic bins; counts halve every `HALF_LIFE` answers. The mean residual life
E[L - g | L > g] predicts the rest of a running answer (after TRAIL, 2410.01035).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(slots=True, eq=False)
class _Histogram:
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))
    total: float = 0.0
    learned: int = 0
    predicted: tuple[float, float] = (0.0, 0.0)
    due: int = 0  # predicted anew when so many were learned

    def learn(self, output_tokens: int) -> None:
        np.multiply(self.counts, _DECAY, out=self.counts)
        self.counts[length_bin(output_tokens)] += 1.0
        self.total = self.total * _DECAY + 1.0
        self.learned += 1


class LengthModel:
    """Predicts output lengths from finished answers; memory is bounded.

    Attributes:
        coverage: share of answers (EWMA) that stayed below their predicted q90,
            0.9 when healthy; None until enough answers were seen.
    """

    def __init__(self) -> None:
        self._by_group: dict[Group, _Histogram] = {}
        self._all = _Histogram()
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
        own = self._by_group.get(group)
        if own is not None and own.total >= _ENOUGH:
            covered = output_tokens <= self.predicted(group)[1]
            self._covered += 0.02 * (covered - self._covered)
            self._seen += 1
        if own is None:
            if len(self._by_group) >= MAX_HISTOGRAMS:
                self._by_group.pop(next(iter(self._by_group)))
            own = self._by_group[group] = _Histogram()
        own.learn(output_tokens)
        self._all.learn(output_tokens)

    def predicted(self, group: Group) -> tuple[float, float]:
        """Mean and q90 of a new answer's length, not bounded by max_tokens.

        At most `_KEEP` answers of its histogram old, because every arrival asks.
        """
        found = self._histogram(group)
        if found is None:
            return DEFAULT_TOKENS, math.inf
        if found.learned >= found.due:
            found.predicted = self.remaining(group, 0, _UNBOUNDED), self.quantile(group, 0.9)
            # Few answers change a prediction much, many do not.
            found.due = found.learned + min(_KEEP, 1 + found.learned // 8)
        return found.predicted

    def remaining(self, group: Group, generated: int, max_tokens: int) -> float:
        """E[L - generated | L > generated] in tokens, between 1 and what max_tokens allows."""
        room = max(1.0, float(max_tokens - generated))
        found = self._histogram(group)
        if found is None:
            return min(room, max(1.0, DEFAULT_TOKENS - generated))
        start = length_bin(generated) if generated > 0 else 0
        tail = found.counts[start:]
        total = tail.sum()
        if total < 1e-6:  # longer than anything seen: expect as much again
            return min(room, max(1.0, float(generated)))
        rest = float((tail * np.maximum(_MIDDLES[start:] - generated, 1.0)).sum() / total)
        return min(room, max(1.0, rest))

    def quantile(self, group: Group, q: float) -> float:
        """Upper edge in tokens of the bin that holds quantile `q` of the lengths."""
        found = self._histogram(group)
        if found is None:
            return math.inf
        index = int(np.searchsorted(np.cumsum(found.counts), q * found.counts.sum()))
        return float(_BASE ** (min(index, BINS - 1) + 1))

    def state(self) -> dict[str, Any]:
        """A copy of what was learned, for `restore`: n groups, their counts (n, BINS)."""
        return {
            "groups": [list(group) for group in self._by_group],
            "counts": np.array([one.counts for one in self._by_group.values()]).reshape(-1, BINS),
            "all": self._all.counts.copy(),
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
        self._by_group = {
            group: _Histogram(row.copy(), float(row.sum()))
            for group, row in zip(groups, counts, strict=True)
        }
        self._all = _Histogram(everybody, float(everybody.sum()))
        self._seen, self._covered = seen, covered

    def _histogram(self, group: Group) -> _Histogram | None:
        own = self._by_group.get(group)
        if own is not None and own.total >= _ENOUGH:
            return own
        return self._all if self._all.total >= _ENOUGH else None


def _stored_group(group: Any) -> Group:
    match group:
        case [str(tenant), int(prompt_bin), int(most_bin)] if 0 < len(tenant) <= 64:
            if 0 <= prompt_bin < BINS and 0 <= most_bin < BINS:
                return tenant, prompt_bin, most_bin
    raise ValueError(f"groups holds {str(group)[:80]!r}: not a tenant (64 characters) and 2 bins")

"""How many tokens will an answer still have? `core.lengths` for Python: tenants by name, a file.

The model's state is two arrays, `LengthModel.arrays`; every formula is in `core.lengths`.
"""

from collections.abc import Mapping
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from serving.core import lengths as core
from serving.core.calls import addresses_of
from serving.core.lengths import BINS, COARSE_BINS, GROUPS_PER_TENANT, MAX_HISTOGRAMS
from serving.perception.stored import stored_array, stored_number

_ENOUGH_SEEN = 50
_NOBODY = 1 << 40  # a number that no tenant has; below 0 a group is a known length

Group = tuple[str, int]  # tenant, and its group there


class LengthModel:
    """Predicts output lengths from finished answers; memory is bounded.

    Attributes:
        arrays: the state, `core.lengths.LENGTHS` and `core.lengths.HISTOGRAM`.
        at: their addresses, for `serving.core.calls`.
    """

    def __init__(self) -> None:
        _compile()
        self._hold(core.new_lengths())
        self._numbers: dict[str, int] = {}  # of tenants that may have a histogram
        self._next = count()  # never one again, or a tenant would inherit histograms

    @property
    def coverage(self) -> float | None:
        """Share of answers (EWMA) that stayed below their predicted q90: 0.9 when healthy.

        None until enough answers were seen.
        """
        lengths, _ = self.arrays
        return float(lengths["covered"][0]) if lengths["seen"][0] >= _ENOUGH_SEEN else None

    @staticmethod
    def group(tenant: str, prompt_tokens: int, max_tokens: int) -> Group:
        """Which histogram a request belongs to (coarse: powers of about 4)."""
        return tenant, core.group_of(0, prompt_tokens, max_tokens)

    def key(self, group: Group) -> int:
        """The core's number of a group; one of a tenant without histograms is nobody's."""
        return self._numbers.get(group[0], _NOBODY) * GROUPS_PER_TENANT + group[1]

    def learn(self, group: Group, output_tokens: int) -> None:
        """Take in one finished answer."""
        tenant = group[0]
        if tenant not in self._numbers:
            self._number(tenant)
        core.learn(*self.arrays, self.key(group), output_tokens)

    def predicted(self, group: Group) -> tuple[float, float]:
        """Mean and q90 of a new answer's length, not bounded by max_tokens."""
        return core.predicted(*self.arrays, self.key(group))

    def remaining(self, group: Group, generated: int, max_tokens: int) -> float:
        """E[L - generated | L > generated] in tokens, between 1 and what max_tokens allows."""
        return core.remaining(*self.arrays, self.key(group), generated, max_tokens)

    def quantile(self, group: Group, q: float) -> float:
        """Upper edge in tokens of the bin that holds quantile `q` of the lengths."""
        return core.quantile(*self.arrays, self.key(group), q)

    def state(self) -> dict[str, Any]:
        """A copy of what was learned, for `restore`: n groups, their counts (n, BINS)."""
        lengths, histograms = self.arrays
        names = {number: tenant for tenant, number in self._numbers.items()}
        groups = []
        rows = self._rows()
        for key in histograms["group"][rows].tolist():
            number, inside = divmod(key, GROUPS_PER_TENANT)
            groups.append([names[number], *divmod(inside, COARSE_BINS)])
        return {
            "groups": groups,
            "counts": histograms["counts"][rows],
            "all": histograms["counts"][0].copy(),
            "seen": int(lengths["seen"][0]),
            "covered": float(lengths["covered"][0]),
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
        counts = stored_array(state, "counts", (len(groups), BINS), largest=core.LARGEST_COUNT)
        everybody = stored_array(state, "all", (BINS,), largest=core.LARGEST_COUNT)
        seen = int(stored_number(state, "seen", 0, 2**62))
        covered = stored_number(state, "covered", 0.0, 1.0)
        self._hold(core.new_lengths())
        lengths, histograms = self.arrays
        lengths["seen"], lengths["covered"] = seen, covered
        self._numbers = {}
        for group in groups:
            if group[0] not in self._numbers:
                self._number(group[0])
            core.add(lengths, histograms, self.key(group))
        # The rows of the groups follow that of all answers.
        histograms["counts"][: len(groups) + 1] = np.vstack([everybody, counts])
        histograms["total"] = histograms["counts"].sum(axis=1)

    def _hold(self, arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self.arrays, self.at = arrays, addresses_of(arrays)

    def _number(self, tenant: str) -> None:
        if len(self._numbers) >= 2 * MAX_HISTOGRAMS:
            used = set((self.arrays[1]["group"][self._rows()] // GROUPS_PER_TENANT).tolist())
            self._numbers = {name: n for name, n in self._numbers.items() if n in used}
        self._numbers[tenant] = next(self._next)

    def _rows(self) -> np.ndarray:
        """Rows of the groups' histograms, the oldest first."""
        made = int(self.arrays[0]["made"][0])
        kept = np.arange(max(0, made - MAX_HISTOGRAMS), made)
        return 1 + kept % MAX_HISTOGRAMS


def _stored_group(group: Any) -> Group:
    match group:
        case [str(tenant), int(prompt_bin), int(most_bin)] if 0 < len(tenant) <= 64:
            if 0 <= prompt_bin < COARSE_BINS and 0 <= most_bin < COARSE_BINS:
                return tenant, prompt_bin * COARSE_BINS + most_bin
    raise ValueError(f"groups holds {str(group)[:80]!r}: not a tenant (64 characters) and 2 bins")


@cache
def _compile() -> None:
    """Compile what steps call, or load it from disk: no step may wait for that."""
    arrays = core.new_lengths()
    core.learn(*arrays, core.group_of(0, 0, 0), 1)
    core.predicted(*arrays, 0)

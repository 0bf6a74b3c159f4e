"""Which of the requests that triage keeps costs most? A heap of them, the dearest in front.

What one costs are its prompt tokens, of engine time, over its weight. An entry is a number, cost
before row, so that most comparisons look at nothing else. Of equals the one that came first is the
dearer.
"""

import numpy as np

from serving.core.jit import compiled_in_place
from serving.core.state import ORDER

_ROW_BITS = 32


@compiled_in_place
def entry_of(row: int, prompt_tokens: int, weight: float) -> int:
    """A request as `kept` has it.

    The bits of floats above zero are in the order of the floats (IEEE 754). At weight 1 the cost is
    exact, up to 2^24 tokens.
    """
    cost = np.int64(np.float32(prompt_tokens / weight).view(np.int32))
    return int(cost << _ROW_BITS | row)


@compiled_in_place
def row_of(entry: int) -> int:
    """Whose entry it is."""
    return entry & ((1 << _ROW_BITS) - 1)


@compiled_in_place
def push(places: np.ndarray, kept: np.ndarray, count: int, entry: int) -> None:
    """Put one more into `kept`, a heap of `count` entries; `places` as of the core."""
    place = count
    while place > 0 and is_dearer(places, entry, kept[(place - 1) // 2]):
        kept[place] = kept[(place - 1) // 2]
        place = (place - 1) // 2
    kept[place] = entry


@compiled_in_place
def exchange(places: np.ndarray, kept: np.ndarray, count: int, entry: int) -> int:
    """Put one more into `kept`, and take out the dearest, maybe itself."""
    if count == 0 or not is_dearer(places, kept[0], entry):
        return entry
    dearest, place, child = kept[0], 0, 1
    while child < count:
        if child + 1 < count:
            child += is_dearer(places, kept[child + 1], kept[child])
        if not is_dearer(places, kept[child], entry):
            break
        kept[place] = kept[child]
        place, child = child, 2 * child + 1
    kept[place] = entry
    return int(dearest)


@compiled_in_place
def is_dearer(places: np.ndarray, one: int, other: int) -> bool:
    """Whether one entry goes before another."""
    if one >> _ROW_BITS == other >> _ROW_BITS:
        return bool(places[row_of(one), ORDER] < places[row_of(other), ORDER])
    return bool(one > other)

"""How many tokens will an answer still have? Decayed histograms of what was seen, in arrays.

One histogram of output lengths per group (tenant, prompt-length bin, max_tokens bin), in
logarithmic bins; counts halve every `HALF_LIFE` answers. The mean residual life
E[L - g | L > g] predicts the rest of a running answer (after TRAIL, 2410.01035). A group
that has seen little goes by the histogram of all answers.
"""

import numpy as np

from serving.core.jit import compiled_in_place

BINS = 48  # bin i holds lengths in [1.25^i, 1.25^(i+1))
MAX_HISTOGRAMS = 512  # the oldest makes room
COARSE_BINS = 8
GROUPS_PER_TENANT = COARSE_BINS * COARSE_BINS
HALF_LIFE = 500.0
_DECAY = 0.5 ** (1.0 / HALF_LIFE)
LARGEST_COUNT = 1.0 / (1.0 - _DECAY)  # what a decayed count grows to
DEFAULT_TOKENS = 128.0
_ENOUGH = 8.0
_KEEP = 64
_COVERAGE_STEP = 0.02
_UNBOUNDED = 10**9
_BINS_PER_COARSE = BINS // COARSE_BINS
_LEAST_TOKENS = np.array([-(-(5**i) // 4**i) for i in range(BINS)])  # the first length of a bin
_MIDDLES = 1.25 ** (np.arange(BINS) + 0.5)
_ENDS = np.array([1.25 ** (i + 1) for i in range(BINS)])

_HEADS = 1021  # a prime, so that keys spread
HISTOGRAM = np.dtype([
    ("group", "i8"),
    ("next", "i8"),  # row with the same remainder of the group, 0 at the end
    ("total", "f8"),
    ("learned", "i8"),
    ("due", "i8"),  # predicted anew when so many were learned
    ("mean_tokens", "f8"),  # predicted
    ("q90_tokens", "f8"),
    ("counts", "f8", (BINS,)),
])  # fmt: skip
LENGTHS = np.dtype([
    ("made", "i8"),  # histograms ever made: n is in row 1 + (n - 1) % MAX_HISTOGRAMS
    ("seen", "i8"),  # answers that had a prediction
    ("covered", "f8"),  # share of them that stayed below their predicted q90, fading
    ("heads", "i8", (_HEADS,)),  # first row of the groups with this remainder, 0 without any
])  # fmt: skip
_ALL = 0  # the row of all answers
_NONE = -1


def new_lengths() -> tuple[np.ndarray, np.ndarray]:
    """A length model before its first answer: LENGTHS (1,), HISTOGRAM (1 + MAX_HISTOGRAMS,)."""
    lengths = np.zeros(1, LENGTHS)
    lengths["covered"] = 0.9
    return lengths, np.zeros(1 + MAX_HISTOGRAMS, HISTOGRAM)


@compiled_in_place
def length_bin(tokens: int) -> int:
    """Index of the logarithmic bin of a length (0 for lengths up to 1)."""
    low, high = 0, BINS
    while high - low > 1:
        middle = (low + high) // 2
        if tokens >= _LEAST_TOKENS[middle]:
            low = middle
        else:
            high = middle
    return low


@compiled_in_place
def group_of(tenant: int, prompt_tokens: int, max_tokens: int) -> int:
    """Which histogram a request belongs to (coarse: powers of about 4).

    Args:
        tenant: a number of the caller's, at least 0.
        prompt_tokens: of the request.
        max_tokens: of the request.
    """
    prompt_bin = length_bin(prompt_tokens) // _BINS_PER_COARSE
    most_bin = length_bin(max_tokens) // _BINS_PER_COARSE
    return tenant * GROUPS_PER_TENANT + prompt_bin * COARSE_BINS + most_bin


@compiled_in_place
def groups_of(
    tenants: np.ndarray, prompt_tokens: np.ndarray, max_tokens: np.ndarray, groups: np.ndarray
) -> None:
    """`group_of` many requests, into `groups`; all of shape (requests,)."""
    for i in range(len(groups)):
        groups[i] = group_of(tenants[i], prompt_tokens[i], max_tokens[i])


@compiled_in_place
def learn(lengths: np.ndarray, histograms: np.ndarray, group: int, output_tokens: int) -> None:
    """Take in one finished answer."""
    if output_tokens <= 0 or group < 0:
        return
    row = _row_of(lengths, histograms, group)
    if row > 0 and histograms[row].total >= _ENOUGH:
        q90 = predicted(lengths, histograms, group)[1]
        within = 1.0 if output_tokens <= q90 else 0.0
        lengths[0].covered += _COVERAGE_STEP * (within - lengths[0].covered)
        lengths[0].seen += 1
    if row == 0:
        row = add(lengths, histograms, group)
    _count(histograms, row, output_tokens)
    _count(histograms, _ALL, output_tokens)


@compiled_in_place
def predicted(lengths: np.ndarray, histograms: np.ndarray, group: int) -> tuple[float, float]:
    """Mean and q90 of a new answer's length, not bounded by max_tokens.

    At most `_KEEP` answers of its histogram old, because every arrival asks. A group below 0 is
    not of a histogram: such a request's length is known, and the group is -tokens.
    """
    if group < 0:
        return float(-group), float(-group)
    row = _speaker(lengths, histograms, group)
    if row == _NONE:
        return DEFAULT_TOKENS, np.inf
    found = histograms[row]
    if found.learned >= found.due:
        found.mean_tokens = _remaining(histograms, row, 0, _UNBOUNDED)
        found.q90_tokens = _quantile(histograms, row, 0.9)
        # Few answers change a prediction much, many do not.
        found.due = found.learned + min(_KEEP, 1 + found.learned // 8)
    return found.mean_tokens, found.q90_tokens


@compiled_in_place
def remaining(
    lengths: np.ndarray, histograms: np.ndarray, group: int, generated: int, max_tokens: int
) -> float:
    """E[L - generated | L > generated] in tokens, between 1 and what max_tokens allows."""
    row = _speaker(lengths, histograms, group)
    return _remaining(histograms, row, generated, max_tokens)


@compiled_in_place
def quantile(lengths: np.ndarray, histograms: np.ndarray, group: int, q: float) -> float:
    """Upper edge in tokens of the bin that holds quantile `q` of the lengths."""
    row = _speaker(lengths, histograms, group)
    return _quantile(histograms, row, q)


@compiled_in_place
def add(lengths: np.ndarray, histograms: np.ndarray, group: int) -> int:
    """An empty histogram for a group that has none; returns its row. The oldest makes room."""
    state = lengths[0]
    row = int(1 + state.made % MAX_HISTOGRAMS)
    if state.made >= MAX_HISTOGRAMS:
        _drop(lengths, histograms, row)
    state.made += 1
    new, head = histograms[row], group % _HEADS
    new.group, new.next = group, state.heads[head]
    state.heads[head] = row
    new.total, new.learned, new.due = 0.0, 0, 0
    for i in range(BINS):
        new.counts[i] = 0.0
    return row


@compiled_in_place
def _drop(lengths: np.ndarray, histograms: np.ndarray, row: int) -> None:
    heads, head = lengths[0].heads, histograms[row].group % _HEADS
    if heads[head] == row:
        heads[head] = histograms[row].next
        return
    before = heads[head]
    while histograms[before].next != row:
        before = histograms[before].next
    histograms[before].next = histograms[row].next


@compiled_in_place
def _row_of(lengths: np.ndarray, histograms: np.ndarray, group: int) -> int:
    """Row of a group's histogram, 0 without one."""
    row = lengths[0].heads[group % _HEADS]
    while row > 0 and histograms[row].group != group:
        row = histograms[row].next
    return int(row)


@compiled_in_place
def _speaker(lengths: np.ndarray, histograms: np.ndarray, group: int) -> int:
    """Row of the histogram that a group goes by."""
    row = _row_of(lengths, histograms, group)
    if row > 0 and histograms[row].total >= _ENOUGH:
        return row
    return _ALL if histograms[_ALL].total >= _ENOUGH else _NONE


@compiled_in_place
def _count(histograms: np.ndarray, row: int, output_tokens: int) -> None:
    own = histograms[row]
    for i in range(BINS):
        own.counts[i] *= _DECAY
    own.counts[length_bin(output_tokens)] += 1.0
    own.total = own.total * _DECAY + 1.0
    own.learned += 1


@compiled_in_place
def _remaining(histograms: np.ndarray, row: int, generated: int, max_tokens: int) -> float:
    room = max(1.0, float(max_tokens - generated))
    if row == _NONE:
        return min(room, max(1.0, DEFAULT_TOKENS - generated))
    total = rest = 0.0
    for i in range(length_bin(generated), BINS):
        count = histograms[row].counts[i]
        total += count
        rest += count * max(_MIDDLES[i] - generated, 1.0)
    if total < 1e-6:  # longer than anything seen: expect as much again
        return min(room, max(1.0, float(generated)))
    return min(room, max(1.0, rest / total))


@compiled_in_place
def _quantile(histograms: np.ndarray, row: int, q: float) -> float:
    if row == _NONE:
        return np.inf
    total = 0.0
    for i in range(BINS):
        total += histograms[row].counts[i]
    below = 0.0
    for i in range(BINS - 1):
        below += histograms[row].counts[i]
        if below >= q * total:
            return float(_ENDS[i])
    return float(_ENDS[BINS - 1])

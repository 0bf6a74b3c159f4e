"""Which KV blocks of which requests contain the same? Dense numbers, by the rule of `SharedBlocks`.

Blocks have one number where two prompts are alike up to their last token: as long as the same
`prefix` ids lead there. All others, and answers, are a request's own.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contracts.requests import PREFIX_BLOCK_TOKENS

# Block i of a request contains shared[first + i], or own + i from `shared` on.
NAMES = np.dtype([("first", "i8"), ("shared", "i8"), ("own", "i8")])


class BlockContents(NamedTuple):
    """Of each request in order, what its full blocks contain, as numbers from 1 on.

    Attributes:
        names: NAMES (requests,).
        shared: of blocks that other requests may have, too.
        last: (1,), the largest number.
    """

    names: NDArray[Any]
    shared: NDArray[np.int32]
    last: NDArray[np.int64]

    @classmethod
    def none(cls) -> "BlockContents":
        """Of no request."""
        return cls(np.zeros(1, NAMES), np.zeros(1, np.int32), np.zeros(1, np.int64))


def number_blocks(
    prefixes: Iterable[Sequence[int]],
    prompt_tokens: NDArray[np.int32],
    answer_tokens: NDArray[np.int32],
    block_size: int,
) -> BlockContents:
    """Number the blocks of requests from their `prefix`, prompt and whole answer.

    Raises:
        ValueError: there are too many blocks.
    """
    # A path is where prefix ids lead. Its contents have numbers one after the other.
    numbers: dict[tuple[int, int], int] = {}  # (path before, prefix id) -> path
    starts = [0]  # of each path, its first content
    count, parts, lengths = 1, [np.zeros(1, np.int32)], list[int]()
    for prefix, prompt in zip(prefixes, prompt_tokens.tolist(), strict=True):
        path, left = 0, min(len(prefix) * PREFIX_BLOCK_TOKENS, prompt) // block_size
        lengths.append(left)
        for depth, block in enumerate(prefix):
            if left <= 0:
                break
            begin, end = (k * PREFIX_BLOCK_TOKENS // block_size for k in (depth, depth + 1))
            found = numbers.get((path, block))
            if found is None:
                found = numbers[path, block] = len(starts)
                starts.append(count)
                count += end - begin
            path, size = found, min(left, end - begin)
            parts.append(np.arange(starts[path], starts[path] + size, dtype=np.int32))
            left -= size
    names = np.zeros(len(lengths), NAMES)
    names["shared"] = lengths
    names["first"] = 1 + np.cumsum(names["shared"]) - names["shared"]
    tokens = prompt_tokens.astype(np.int64) + answer_tokens
    return _with_own(names, np.concatenate(parts), count, tokens // block_size)


def gather(
    contents: BlockContents,
    rows: NDArray[np.int64],
    prompt_tokens: NDArray[np.int32],
    answer_tokens: NDArray[np.int32],
    block_size: int,
) -> BlockContents:
    """Contents of requests that begin as those in `rows` do; copies share their prefixes alone."""
    first = int(contents.shared.max()) + 1
    tokens = prompt_tokens.astype(np.int64) + answer_tokens
    return _with_own(contents.names[rows], contents.shared, first, tokens // block_size)


def _with_own(
    names: NDArray[Any], shared: NDArray[np.int32], first: int, blocks: NDArray[np.int64]
) -> BlockContents:
    """With numbers from `first` on for what each request of so many full blocks has for itself."""
    own = blocks + 1 - names["shared"]
    names["own"] = first + np.cumsum(own) - own - names["shared"]
    last = np.array([first + own.sum()], np.int64)
    if last[0] >= 2**31:
        raise ValueError(f"{last[0]} different KV blocks: at most {2**31 - 1} can be numbered")
    return BlockContents(names, shared, last)

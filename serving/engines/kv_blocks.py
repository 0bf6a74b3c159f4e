"""Which KV blocks does a request get, share, keep and lose? vLLM's block pool, compiled.

As `BlockPool`, `FreeKVCacheBlockQueue` and the manager of full attention do it in vLLM 0.32.
Without prefix caching only the number of free blocks is kept.

With it, a full block has a content: a number that stands for its tokens and all before them
(`block_contents`). Free blocks are a list that is taken from its front. A block that is freed
without a content goes to the front, one with a content to the end, where it can be found until it
is taken: that is the eviction. Copies of one content lie side by side, and the oldest serves.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.core.jit import compiled_in_place
from serving.engines.block_contents import BlockContents

# Block 0 is the one that vLLM never hands out. Here it is both ends of the free list, and "none".
BLOCK = np.dtype(
    [
        ("next", "i4"), ("previous", "i4"),  # in the free list
        ("references", "i4"),  # of requests that hold it; 0 is free
        ("content", "i4"),  # 0 is none
        ("next_copy", "i4"), ("previous_copy", "i4"),  # a ring of the blocks of one content
        ("spare", "i8"),  # two blocks to a cache line
    ],
    align=True,
)  # fmt: skip
POOL = np.dtype(
    [
        ("free", "i8"), ("block_size", "i8"), ("caching", "i8"), ("open_slots", "i8"),
        ("shared_from", "i8"),  # added to the numbers of contents that requests share
    ]
)  # fmt: skip


class KvBlocks(NamedTuple):
    """The pool and who holds what; all but `pool` is of one element without prefix caching.

    Attributes:
        pool: POOL (1,), the counts.
        blocks: BLOCK (kv_blocks,).
        holders: (contents + 1,), the oldest block of each content, or 0. Pools of several replicas
            have one in common: what is a request's own is at one replica only, and for what
            requests share each pool has a part of its own, from `shared_from` on.
        table: (slots, blocks), the blocks of the request in each slot, in order.
        slots: numbers of the open slots, the next one at `open_slots - 1`.
        contents: what the blocks of each request contain.
    """

    pool: NDArray[Any]
    blocks: NDArray[Any]
    holders: NDArray[np.int32]
    table: NDArray[np.int32]
    slots: NDArray[np.int32]
    contents: BlockContents


def empty_blocks(
    kv_blocks: int, block_size: int, most_tokens: int, requests: int, contents: BlockContents | None
) -> KvBlocks:
    """A pool of which every block is free.

    `requests` of at most `most_tokens` each (prompt and answer) hold blocks at once. `contents`
    is of all requests to come; None is no prefix caching.
    """
    pool = np.zeros(1, POOL)
    pool["free"], pool["block_size"] = kv_blocks - 1, block_size
    nothing = np.zeros(1, np.int32)
    if contents is None:
        none = BlockContents.none()
        return KvBlocks(pool, np.zeros(1, BLOCK), nothing, nothing.reshape(1, 1), nothing, none)
    slots = requests + 1  # one for a moment, to look up or hold a prefix
    pool["caching"], pool["open_slots"] = 1, slots
    blocks = np.zeros(kv_blocks, BLOCK)
    in_order = np.arange(kv_blocks, dtype=np.int32)
    blocks["next"], blocks["previous"] = np.roll(in_order, -1), np.roll(in_order, 1)
    table = np.empty((slots, most_tokens // block_size + 1), np.int32)
    numbers = np.arange(slots, dtype=np.int32)
    holders = np.zeros(int(contents.last[0]) + 1, np.int32)
    return KvBlocks(pool, blocks, holders, table, numbers, contents)


@compiled_in_place
def next_slot(kv: KvBlocks) -> int:
    """The slot that the next request will get; what lies in its table has no meaning yet."""
    return int(kv.slots[kv.pool[0].open_slots - 1])


@compiled_in_place
def content_of(kv: KvBlocks, row: int, block: int) -> int:
    """What a request's block contains, counted from its first."""
    names = kv.contents.names[row]
    if block < names.shared:
        return int(kv.contents.shared[names.first + block] + kv.pool[0].shared_from)
    return int(names.own + block)


@compiled_in_place
def find(kv: KvBlocks, row: int, slot: int, most: int) -> tuple[int, int]:
    """The blocks that hold the beginning of a request, into the table of `slot`.

    Returns:
        how many, at most `most`, and how many of them are free.
    """
    found = idle = 0
    while found < most:
        block = kv.holders[content_of(kv, row, found)]
        if block == 0:
            break
        kv.table[slot, found] = block
        idle += kv.blocks[block].references == 0
        found += 1
    return found, idle


@compiled_in_place
def adopt(kv: KvBlocks, slot: int, count: int) -> None:
    """Hold the first `count` blocks of the table, which `find` put there."""
    blocks = kv.blocks
    for k in range(count):
        block = blocks[kv.table[slot, k]]
        if block.references == 0:
            blocks[block.previous].next = block.next
            blocks[block.next].previous = block.previous
            kv.pool[0].free -= 1
        block.references += 1


@compiled_in_place
def take(kv: KvBlocks, slot: int, held: int, count: int) -> None:
    """Hand out `count` free blocks to a request that holds `held`. There must be as many."""
    kv.pool[0].free -= count
    if kv.pool[0].caching == 0:
        return
    blocks = kv.blocks
    for k in range(held, held + count):
        number = blocks[0].next
        block = blocks[number]
        blocks[0].next = block.next
        blocks[block.next].previous = 0
        if block.content != 0:
            _evict(kv, number)
        block.references = 1
        kv.table[slot, k] = number


@compiled_in_place
def cache(kv: KvBlocks, row: int, slot: int, cached: int, full: int) -> None:
    """Let others find the blocks from `cached` to `full` of a request: they are full now."""
    blocks = kv.blocks
    for k in range(cached, full):
        number = kv.table[slot, k]
        block = blocks[number]
        content = content_of(kv, row, k)
        block.content = content
        first = kv.holders[content]
        if first == 0:
            kv.holders[content] = number
            block.next_copy = number
            block.previous_copy = number
        else:
            last = blocks[first].previous_copy
            blocks[last].next_copy = number
            blocks[first].previous_copy = number
            block.next_copy = first
            block.previous_copy = last


@compiled_in_place
def release(kv: KvBlocks, slot: int, held: int, cached: int) -> None:
    """Give the blocks of a request back: the first `cached` of the `held` have a content."""
    if kv.pool[0].caching == 0:
        kv.pool[0].free += held
        return
    blocks = kv.blocks
    freed = held - cached
    for k in range(cached - 1, -1, -1):  # the end of a prompt is evicted before its beginning
        number = kv.table[slot, k]
        block = blocks[number]
        block.references -= 1
        if block.references == 0:
            last = blocks[0].previous
            block.previous = last
            block.next = 0
            blocks[last].next = number
            blocks[0].previous = number
            freed += 1
    for k in range(cached, held):  # the last one comes to lie in front
        number = kv.table[slot, k]
        block = blocks[number]
        block.references = 0
        first = blocks[0].next
        block.next = first
        block.previous = 0
        blocks[first].previous = number
        blocks[0].next = number
    kv.pool[0].free += freed


@compiled_in_place
def hold_prefix(kv: KvBlocks, row: int, known: int, tokens: int) -> None:
    """Cache the first `tokens` of a request as if others had just used them.

    As `virtual_resume.hold_prefix` does it: in whole blocks, in place of what was used longest ago,
    without the last of the `known` tokens, and not at all if there is no room.
    """
    pool = kv.pool[0]
    wanted = min(tokens, known - 1) // pool.block_size
    if pool.caching == 0 or wanted <= 0:
        return
    slot = next_slot(kv)
    found, idle = find(kv, row, slot, wanted)
    if found < wanted and wanted - found + idle <= pool.free:
        adopt(kv, slot, found)
        take(kv, slot, found, wanted - found)
        cache(kv, row, slot, found, wanted)
        release(kv, slot, wanted, wanted)


@compiled_in_place
def _evict(kv: KvBlocks, number: int) -> None:
    blocks = kv.blocks
    block = blocks[number]
    content = block.content
    if block.next_copy == number:
        kv.holders[content] = 0
    else:
        blocks[block.previous_copy].next_copy = block.next_copy
        blocks[block.next_copy].previous_copy = block.previous_copy
        if kv.holders[content] == number:
            kv.holders[content] = block.next_copy
    block.content = 0

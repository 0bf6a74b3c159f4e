"""Who fits into the next prefill? What one prefill step of the SGLang emulation may take.

Used by `scheduler`, which walks the queue.
"""

from dataclasses import dataclass

from evals.arms.sglang.batch import CLIP_NEW_TOKENS, ServedRequest

PAGE_TOKENS = 1


@dataclass(frozen=True, slots=True)
class Prefill:
    """`tokens` of a request prefilled in one step, after `before` that were there already."""

    request: ServedRequest
    tokens: int
    before: int
    last: bool


@dataclass(slots=True)
class PrefillBudget:
    """What is left for one prefill step, in tokens.

    Attributes:
        kv: free KV cache without what running requests may still need.
        chunk: rest of chunked_prefill_size.
        prompt: rest of max_prefill_tokens.
    """

    kv: float
    chunk: int
    prompt: int

    @property
    def spent(self) -> bool:
        """Nothing more can be prefilled in this step, although the KV cache has room."""
        return self.kv > 0 and min(self.chunk, self.prompt) <= 0

    def fits(self, request: ServedRequest) -> bool:
        """Admit if uncached + min(max_new - out, 4096) + page < rem."""
        to_come = min(request.max_new_tokens - request.output_tokens, CLIP_NEW_TOKENS)
        return request.uncached_tokens + to_come + PAGE_TOKENS < self.kv

    def take(self, request: ServedRequest) -> Prefill:
        """Prefill as much of a request as the chunk allows, and charge it.

        The total is charged with uncached + page + max_new, no output before the last
        chunk; the chunk and input budgets with uncached.
        """
        uncached = request.uncached_tokens
        tokens = min(uncached, self.chunk)
        last = tokens == uncached
        output = min(request.max_new_tokens, CLIP_NEW_TOKENS) if last else 0
        self.kv -= tokens + PAGE_TOKENS + output
        self.chunk -= tokens
        self.prompt -= tokens
        return Prefill(request, tokens, request.prefilled_tokens, last)

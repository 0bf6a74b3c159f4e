"""Which requests decode? The running batch of the SGLang emulation.

All requests of the batch get one token per decode step, so the batch counts steps and
visits a request only when it joins or leaves. Used by `scheduler`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

CLIP_NEW_TOKENS = 4096  # no more output than this is ever reserved for one request


@dataclass(slots=True, eq=False)
class ServedRequest:
    """A request inside the emulation; lengths in tokens.

    Attributes:
        index: its place in the workload.
        prompt_tokens: length of the prompt.
        answer_tokens: it leaves after this many output tokens.
        max_new_tokens: output that its client allows, which is what SGLang reserves by.
        output_tokens: output so far; in the running batch as of joining it, where
            `RunningBatch.output_tokens` says how many there are now.
        prefilled_tokens: tokens in the KV cache while it is prefilled.
        joined_step: decode step after which it joined the running batch.
    """

    index: int
    prompt_tokens: int
    answer_tokens: int
    max_new_tokens: int
    output_tokens: int = 0
    prefilled_tokens: int = 0
    joined_step: int = 0

    @property
    def uncached_tokens(self) -> int:
        """Tokens still to prefill; after a retraction its output is prefilled as well."""
        return self.prompt_tokens + self.output_tokens - self.prefilled_tokens


class RunningBatch:
    """The decoding requests, in the order in which they joined.

    Attributes:
        steps: decode steps so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._requests: dict[int, ServedRequest] = {}
        self._ends: dict[int, list[ServedRequest]] = {}  # decode step -> who ends with it

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[ServedRequest]:
        return iter(self._requests.values())

    def output_tokens(self, request: ServedRequest) -> int:
        """Output tokens of a running request so far."""
        return request.output_tokens + self.steps - request.joined_step

    def kv_tokens(self, request: ServedRequest) -> int:
        """Tokens of a running request in the KV cache: all but the latest."""
        return request.prompt_tokens + self.output_tokens(request) - 1

    def reserved_tokens(self) -> int:
        """Output still to come at most: sum of min(max_new - out, 4096)."""
        return sum(
            min(request.max_new_tokens - self.output_tokens(request), CLIP_NEW_TOKENS)
            for request in self
        )

    def join(self, request: ServedRequest) -> None:
        """A prefilled request decodes from the next step on."""
        request.joined_step = self.steps
        self._requests[request.index] = request
        self._ends.setdefault(self._end_step(request), []).append(request)

    def decode(self) -> list[ServedRequest]:
        """One token for every request; returns those that have left with their last one."""
        self.steps += 1
        finished = self._ends.pop(self.steps, [])
        for request in finished:
            self._settle(request)
        return finished

    def retract(self, request: ServedRequest) -> None:
        """Take a request out; it keeps its output and has nothing in the KV cache."""
        self._ends[self._end_step(request)].remove(request)
        self._settle(request)

    def _end_step(self, request: ServedRequest) -> int:
        return request.joined_step + request.answer_tokens - request.output_tokens

    def _settle(self, request: ServedRequest) -> None:
        request.output_tokens = self.output_tokens(request)
        request.prefilled_tokens = 0
        del self._requests[request.index]

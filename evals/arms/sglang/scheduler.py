"""What does SGLang run next? Its default scheduling, step by step, emulated.

The rules are those of SGLang 0.5.23 (`Scheduler.get_next_batch_to_run`, `PrefillAdder`,
`ScheduleBatch.retract_decode`, `NewTokenRatioTracker`) with its defaults: fcfs, page size
1, schedule conservativeness 1.0, retraction by length; with or without mixed chunks. Driven by
`engine`, which knows time; nothing here does.

All requests of the running batch get one token per decode step, so the batch counts steps and
visits a request only when it joins or leaves.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from serving.perception.cost_model import StepShape

CLIP_NEW_TOKENS = 4096  # no more output than this is ever reserved for one request
PAGE_TOKENS = 1
MAX_PREFILL_TOKENS = 16_384
INITIAL_RATIO, LEAST_RATIO = 0.7, 0.098
RATIO_DECAY = (INITIAL_RATIO - LEAST_RATIO) / 600
RETRACT_STEPS = 20  # decode steps that the ratio allows for after a retraction


@dataclass(slots=True, eq=False)
class ServedRequest:
    """A request inside the emulation; lengths in tokens."""

    index: int  # its place in the workload
    prompt_tokens: int  # length of the prompt
    answer_tokens: int  # it leaves after this many output tokens
    max_new_tokens: int  # output that its client allows, which is what SGLang reserves by
    # Output so far; in the running batch as of joining it, where `RunningBatch.output_tokens` says
    # how many there are now.
    output_tokens: int = 0
    prefilled_tokens: int = 0  # tokens in the KV cache while it is prefilled
    joined_step: int = 0  # decode step after which it joined the running batch

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


@dataclass(frozen=True, slots=True)
class Prefill:
    """`tokens` of a request prefilled in one step, after `before` that were there already."""

    request: ServedRequest
    tokens: int
    before: int
    last: bool


@dataclass(slots=True)
class PrefillBudget:
    """What is left for one prefill step, in tokens."""

    kv: float  # free KV cache without what running requests may still need
    chunk: int  # rest of chunked_prefill_size
    prompt: int  # rest of max_prefill_tokens

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


@dataclass(frozen=True, slots=True)
class Step:
    """One batch: prefills, or, where there are none, a token for each running request.

    With mixed chunks both. `retracted` left the running batch just before, in this order.
    """

    shape: StepShape
    prefills: tuple[Prefill, ...] = ()
    retracted: tuple[ServedRequest, ...] = ()


class EmulatedScheduler:
    """Queue, running batch and KV cache of the emulation.

    With `mixed`, running requests decode in prefill steps, too, and their tokens count in the chunk
    (`--enable-mixed-chunk`).

    Attributes:
        waiting: requests not admitted, or retracted, in the order of service.
        running: requests that decode.
        chunked: the one request whose prefill has begun and not ended.
        free_tokens: free KV cache; what a finished request leaves to the radix cache can be
            evicted and is free here.
        ratio: SGLang's new_token_ratio, the share of the allowed output that it expects.
        batch_is_full: nobody is admitted until somebody has left.
    """

    def __init__(
        self, kv_tokens: int, max_running_requests: int, chunked_prefill_size: int,
        mixed: bool = False,
    ) -> None:  # fmt: skip
        self.kv_tokens = self.free_tokens = kv_tokens
        self.max_running_requests = max_running_requests
        self.chunked_prefill_size = chunked_prefill_size
        self._mixed = mixed
        self.waiting: deque[ServedRequest] = deque()
        self.running = RunningBatch()
        self.chunked: ServedRequest | None = None
        self.ratio = INITIAL_RATIO
        self.batch_is_full = False
        self._prefilled: list[ServedRequest] = []  # whose first token came with the last step

    def schedule(self) -> Step | None:
        """The next batch; None when there is nothing to do, which resets the ratio."""
        self._merge()
        prefills = self._admit()
        if prefills:
            return Step(self._prefill_shape(prefills), prefills=tuple(prefills))
        if self.running:
            return self._decode()
        self.ratio = INITIAL_RATIO
        return None

    def complete(self, step: Step) -> list[ServedRequest]:
        """The step has run: its tokens are there; returns the requests that finished."""
        finished: list[ServedRequest] = []
        if step.shape.decodes:
            finished = self.running.decode()
            for request in finished:
                # All its output but the last token, which is never computed upon.
                self.free_tokens += request.prompt_tokens + request.output_tokens - 1
            if step.prefills:  # all are one new batch, whose flag is not set
                self.batch_is_full = False
        finished += self._complete_prefills(step.prefills)
        if finished:
            self.batch_is_full = False
        return finished

    def _complete_prefills(self, prefills: tuple[Prefill, ...]) -> list[ServedRequest]:
        finished = []
        for prefill in prefills:
            request = prefill.request
            request.prefilled_tokens += prefill.tokens
            if not prefill.last:
                continue
            request.output_tokens += 1
            if request.output_tokens < request.answer_tokens:
                self._prefilled.append(request)
            else:
                self.free_tokens += request.prefilled_tokens
                finished.append(request)
        return finished

    def _merge(self) -> None:
        """Step 1: merge the finished prefill into the running batch.

        Finished requests are gone, and a departure has cleared the flag. An empty running
        batch is replaced by the prefill batch, whose flag is not set.
        """
        if not self.running:
            self.batch_is_full = False
        for request in self._prefilled:
            self.running.join(request)
        self._prefilled.clear()

    def _admit(self) -> list[Prefill]:
        """Step 2: prefill first; the chunked request, then the queue in order.

        Stops at the first request that does not fit (head-of-line blocking).
        """
        if self.chunked is None:
            if self.batch_is_full or not self.waiting:
                return []
            if len(self.running) >= self.max_running_requests:
                self.batch_is_full = True
                return []
        reserved = self.running.reserved_tokens() * self.ratio
        decodes = len(self.running) if self._mixed else 0
        budget = PrefillBudget(
            self.free_tokens - reserved - decodes, self.chunked_prefill_size - decodes,
            MAX_PREFILL_TOKENS - decodes,
        )  # fmt: skip
        prefills: list[Prefill] = []
        if self.chunked is not None:
            prefills.append(self._take(self.chunked, budget))
        while self.waiting and not budget.spent:
            if len(prefills) + len(self.running) >= self.max_running_requests:
                self.batch_is_full = True
            if self.batch_is_full:
                break
            if not budget.fits(self.waiting[0]):
                self.batch_is_full = bool(prefills or self.running)
                break
            prefills.append(self._take(self.waiting.popleft(), budget))
            if budget.kv <= 0:
                self.batch_is_full = True
        return prefills

    def _take(self, request: ServedRequest, budget: PrefillBudget) -> Prefill:
        prefill = budget.take(request)
        self.free_tokens -= prefill.tokens
        self.chunked = None if prefill.last else request
        return prefill

    def _prefill_shape(self, prefills: list[Prefill]) -> StepShape:
        """Step 3: what is admitted runs alone, so decodes stall; or, mixed, with the decodes."""
        tokens = sum(prefill.tokens for prefill in prefills)
        square = sum(prefill.tokens * prefill.before for prefill in prefills)
        if not self._mixed or len(self.running) > self.free_tokens:
            return StepShape(prefill_tokens=tokens, prefill_square=square)
        context = sum(self.running.kv_tokens(request) for request in self.running)
        self.free_tokens -= len(self.running)
        return StepShape(tokens, len(self.running), context, square)

    def _decode(self) -> Step:
        """Steps 4 and 5: a token for each running request; retract if the KV cache is short.

        Without retraction the ratio falls by (0.7 - 0.098)/600 a step, to 0.098.
        """
        retracted: tuple[ServedRequest, ...] = ()
        if self.free_tokens < len(self.running):
            retracted = self._retract()
        else:
            self.ratio = max(self.ratio - RATIO_DECAY, LEAST_RATIO)
        # Nobody is mid-prefill when SGLang decodes, so all that is in use is decode context.
        shape = StepShape(
            decodes=len(self.running), decode_context=self.kv_tokens - self.free_tokens
        )
        self.free_tokens -= len(self.running)
        return Step(shape, retracted=retracted)

    def _retract(self) -> tuple[ServedRequest, ...]:
        """Retract those with the fewest output tokens first (ties: longest prompt) until it fits.

        Their KV is freed and they go to the queue's tail; then the ratio is
        min(1, (sum out + 20 n) / (sum max_new + 1)) over the survivors.
        """
        running = self.running
        # Of equals SGLang takes the latest: it sorts in reverse, and pops from the end.
        keep = sorted(
            running, key=lambda r: (running.output_tokens(r), -r.prompt_tokens), reverse=True
        )
        retracted: list[ServedRequest] = []
        while not retracted or self.free_tokens < len(keep):
            request = keep.pop()
            self.free_tokens += running.kv_tokens(request)
            running.retract(request)
            retracted.append(request)
        self.waiting.extend(retracted)
        self.batch_is_full = False
        output = sum(running.output_tokens(request) for request in running)
        allowed = sum(request.max_new_tokens for request in running)
        self.ratio = min(1.0, (output + RETRACT_STEPS * len(running)) / (allowed + 1))
        return tuple(retracted)

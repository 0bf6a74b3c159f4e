"""What does SGLang run next? Its default scheduling, step by step, emulated.

The rules are those of SGLang 0.5.23 (`Scheduler.get_next_batch_to_run`, `PrefillAdder`,
`ScheduleBatch.retract_decode`, `NewTokenRatioTracker`) with its defaults: fcfs, page size
1, schedule conservativeness 1.0, retraction by length; with or without mixed chunks. Driven by
`engine`, which knows time; nothing here does.
"""

from collections import deque
from dataclasses import dataclass

from evals.arms.sglang.admission import Prefill, PrefillBudget
from evals.arms.sglang.batch import RunningBatch, ServedRequest
from serving.perception.cost_model import StepShape

MAX_PREFILL_TOKENS = 16_384
INITIAL_RATIO, LEAST_RATIO = 0.7, 0.098
RATIO_DECAY = (INITIAL_RATIO - LEAST_RATIO) / 600
RETRACT_STEPS = 20  # decode steps that the ratio allows for after a retraction


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

    Args:
        kv_tokens: capacity of the KV cache.
        max_running_requests: most requests in the running batch.
        chunked_prefill_size: most tokens of one prefill step.
        mixed: running requests decode in prefill steps, too, and their tokens count in the chunk
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



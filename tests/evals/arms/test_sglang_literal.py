"""Does the SGLang emulation take the steps of the rules written out literally?

`Literal` visits every request in every step and keeps no running sums, so it can be read
against SGLang's source; the emulation must agree with it step for step.
"""

import random
from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from evals.arms.sglang.scheduler import EmulatedScheduler, ServedRequest, Step


@dataclass(eq=False)
class Row:
    index: int
    prompt: int
    answer: int
    max_new: int
    out: int = 0
    kv: int = 0

    @property
    def uncached(self) -> int:
        return self.prompt + self.out - self.kv

    @property
    def finished(self) -> bool:
        return self.out >= self.answer


class Literal:
    def __init__(
        self, kv: int, max_running: int, chunked_prefill_size: int, mixed: bool = False
    ) -> None:
        self.kv, self.max_running, self.chunk_size = kv, max_running, chunked_prefill_size
        self.mixed, self.was_mixed = mixed, False
        self.queue: list[Row] = []
        self.running: list[Row] = []
        self.last: list[Row] = []  # the last step's prefill batch
        self.chunked: Row | None = None
        self.is_full, self.r = False, 0.7

    def free(self) -> int:
        inside = {*self.running, *self.last} | ({self.chunked} if self.chunked else set())
        # What this step prefills keeps its place until the step is over.
        return self.kv - sum(r.kv for r in inside if not r.finished or r in self.last)

    def step(self) -> tuple[object, ...] | None:
        self.merge_and_drop()
        self.last = self.prefill()
        if self.last:
            if not self.mixed or not self.running or self.free() < len(self.running):
                return ("prefill", *self.taken)
            context = sum(row.kv for row in self.running)
            for row in self.running:
                row.kv += 1
                row.out += 1
            self.was_mixed = True
            return ("mixed", *self.taken, len(self.running), context)
        if not self.running:
            self.r = 0.7
            return None
        if self.free() < len(self.running):
            retracted = self.retract()
        else:
            retracted = []
            self.r = max(self.r - (0.7 - 0.098) / 600, 0.098)
        context = sum(row.kv for row in self.running)
        for row in self.running:
            row.kv += 1
            row.out += 1
        assert self.free() >= 0
        return ("decode", [row.index for row in retracted], len(self.running), context)

    def merge_and_drop(self) -> None:
        merged = [row for row in self.last if row is not self.chunked and not row.finished]
        if len(merged) < len(self.last) or self.was_mixed:  # all are one new batch then
            self.is_full = False
        self.was_mixed = False
        self.last = []
        left = [row for row in self.running if not row.finished]
        if len(left) < len(self.running) or not left:
            self.is_full = False
        self.running = left + merged

    def prefill(self) -> list[Row]:
        if (self.is_full or not self.queue) and self.chunked is None:
            return []
        if len(self.running) >= self.max_running and self.chunked is None:
            self.is_full = True
            return []
        rem = self.free() - self.r * sum(min(row.max_new - row.out, 4096) for row in self.running)
        decodes = len(self.running) if self.mixed else 0
        rem, chunk, inputs = rem - decodes, self.chunk_size - decodes, 16384 - decodes
        batch: list[Row] = []
        self.taken: list[tuple[int, int, int]] = []
        walk = list(self.queue)
        if self.chunked is not None:
            walk.insert(0, self.chunked)
        for row in walk:
            if row is not self.chunked:
                if rem > 0 and (chunk <= 0 or inputs <= 0):
                    break
                if len(batch) + len(self.running) >= self.max_running:
                    self.is_full = True
                if self.is_full:
                    break
                if row.uncached + min(row.max_new - row.out, 4096) + 1 >= rem:
                    self.is_full = bool(batch or self.running)
                    break
                self.queue.remove(row)
            tokens, whole = min(row.uncached, chunk), row.uncached <= chunk
            was_chunked = row is self.chunked
            rem -= tokens + 1 + (min(row.max_new, 4096) if whole else 0)
            chunk, inputs = chunk - tokens, inputs - tokens
            self.taken.append((row.index, tokens, row.kv))
            batch.append(row)
            row.kv += tokens
            row.out += whole
            self.chunked = None if whole else row
            if rem <= 0 and not was_chunked:
                self.is_full = True
        return batch

    def retract(self) -> list[Row]:
        order = sorted(self.running, key=lambda row: (row.out, -row.prompt), reverse=True)
        retracted: list[Row] = []
        while not retracted or self.free() < len(order):
            row = order.pop()
            row.kv = 0
            self.running.remove(row)
            retracted.append(row)
        self.queue += retracted
        self.is_full = False
        out, allowed = sum(row.out for row in order), sum(row.max_new for row in order)
        self.r = min(1.0, (out + 20 * len(order)) / (allowed + 1))
        return retracted


def told(step: Step | None) -> tuple[object, ...] | None:
    """A step of the emulation in the words of `Literal`."""
    if step is None:
        return None
    if step.prefills:
        taken = ((p.request.index, p.tokens, p.before) for p in step.prefills)
        if step.shape.decodes:
            return ("mixed", *taken, step.shape.decodes, step.shape.decode_context)
        return ("prefill", *taken)
    retracted = [request.index for request in step.retracted]
    return ("decode", retracted, step.shape.decodes, step.shape.decode_context)


KV = 200
Arrival = tuple[int, int, int, int]  # steps since the last one, prompt, answer, allowed beyond
ARRIVALS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(1, 60), st.integers(1, 60), st.integers(0, 30)),
    min_size=1, max_size=25,
)  # fmt: skip


@dataclass
class Met:
    steps: int = 0
    chunks: int = 0
    retractions: int = 0
    mixed: int = 0


def compare(
    arrivals: list[Arrival], max_running: int, chunk: int, ratio: float, met: Met,
    mixed: bool = False,
) -> None:  # fmt: skip
    literal = Literal(KV, max_running, chunk, mixed)
    engine = EmulatedScheduler(KV, max_running, chunk, mixed)
    literal.r = engine.ratio = ratio
    coming: deque[tuple[int, int, int, int, int]] = deque()
    at = 0
    for index, (gap, prompt, answer, beyond) in enumerate(arrivals):
        at += gap if index else 0  # an idle step would reset the ratio
        coming.append((at, index, prompt, answer, min(answer + beyond, KV - prompt - 3)))
    for now in range(10_000):
        while coming and coming[0][0] <= now:
            _, index, *lengths = coming.popleft()
            literal.queue.append(Row(index, *lengths))
            engine.waiting.append(ServedRequest(index, *lengths))
        step, wanted = engine.schedule(), literal.step()
        assert told(step) == wanted
        assert [request.index for request in engine.waiting] == [row.index for row in literal.queue]
        assert (engine.batch_is_full, engine.ratio) == (literal.is_full, literal.r)
        if step is not None:
            if mixed and engine.free_tokens < 0:
                return  # SGLang takes the next chunk unchecked beside decodes: it would end here
            assert 0 <= engine.free_tokens <= KV
            engine.complete(step)
            met.steps += 1
            met.chunks += any(not prefill.last for prefill in step.prefills)
            met.retractions += len(step.retracted)
            met.mixed += bool(step.prefills and step.shape.decodes)
        elif not coming:
            break
    assert (engine.free_tokens, len(engine.waiting), len(engine.running)) == (KV, 0, 0)


@given(ARRIVALS, st.integers(1, 8), st.sampled_from([7, 30, 8192]), st.sampled_from([0.7, 0.0]))
def test_the_emulation_takes_the_literal_steps(arrivals, max_running, chunk, ratio):
    compare(arrivals, max_running, chunk, ratio, Met())


@given(ARRIVALS, st.integers(1, 6), st.sampled_from([7, 30, 8192]), st.sampled_from([0.7, 0.0]))
def test_so_it_does_with_mixed_chunks(arrivals, max_running, chunk, ratio):
    compare(arrivals, max_running, chunk, ratio, Met(), mixed=True)


def test_also_where_the_kv_cache_runs_short():
    rng, met = random.Random(4), Met()
    for _ in range(30):
        arrivals = [
            (rng.randint(0, 3), rng.randint(1, 30), rng.randint(20, 60), 0) for _ in range(30)
        ]
        compare(arrivals, 100, rng.choice([7, 30, 8192]), 0.098, met)
    assert met.retractions > 40
    assert met.chunks > 100


def test_mixed_chunks_also_where_the_kv_cache_runs_short():
    rng, met = random.Random(5), Met()
    for _ in range(30):
        arrivals = [
            (rng.randint(0, 3), rng.randint(1, 30), rng.randint(20, 60), 0) for _ in range(30)
        ]
        compare(arrivals, 25, rng.choice([30, 8192]), 0.098, met, mixed=True)
    assert met.mixed > 100
    assert met.retractions > 20

"""Which load tells the coefficients apart? Concurrency x prompt x output x step size.

Closed loops, so that concurrency is what was asked. Called by the calibration, which reads
the steps that they cause; what a client sees does not matter here.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx

from evals.live.completion_stream import Served, StreamError, stream_completion
from evals.live.load_generator import completion_body, new_cache_salt
from evals.machines.steps import CalibrationError
from serving.contracts import Envelope, TraceRequest

_RUNGS = 6
_LONGEST = 8192
_PROMPT_SHARES = (1 / 128, 1 / 16, 1 / 4, 3 / 4)  # of the context length
_OUTPUTS = (8, 64)
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Rung:
    """So many clients at a time, under so large a step."""

    concurrency: int
    token_budget: int


def rungs(envelope: Envelope) -> list[Rung]:
    """Concurrencies from 1 to the engine's most, each under the whole and a small step.

    Small steps cut prompts into chunks that look back at what came before: without them
    `per_square_s` could not be told.
    """
    most = envelope.max_active_requests
    ladder = sorted({round(most ** (i / (_RUNGS - 1))) for i in range(_RUNGS)})
    small = min(envelope.token_budget, max(most, 64, envelope.token_budget // 8))
    budgets = sorted({envelope.token_budget, small}, reverse=True)
    return [Rung(concurrency, budget) for budget in budgets for concurrency in ladder]


def cells(max_model_len: int, seed: int) -> Iterator[tuple[int, TraceRequest]]:
    """An endless, numbered draw from prompt x output; long prompts are rarer, not to take all."""
    context = min(max_model_len, _LONGEST)
    prompts = [max(2, int(context * share)) for share in _PROMPT_SHARES]
    weights = [1 / (prompt + context / 32) for prompt in prompts]
    rng = random.Random(f"{seed}:calibrate")
    for index in itertools.count():
        (prompt,) = rng.choices(prompts, weights)
        output = min(rng.choice(_OUTPUTS), max_model_len - prompt - 1)
        yield index, TraceRequest(0.0, prompt, max(1, output))


async def load_for(
    base_url: str, model: str, requests: Iterator[tuple[int, TraceRequest]], *,
    concurrency: int, seconds: float, seed: int, on_second: Callable[[float], None],
) -> None:  # fmt: skip
    """Keep `concurrency` requests under way for `seconds`; the rest is cancelled.

    Raises:
        CalibrationError: the server failed a request; says how.
    """
    cache_salt = new_cache_salt()  # an earlier calibration's prompts may still be cached

    async def client_loop(client: httpx.AsyncClient) -> None:
        for index, request in requests:
            body = completion_body(model, request, seed, index, cache_salt=cache_salt)
            try:
                await stream_completion(client, body, f"calibrate-{seed}-{index}", Served())
            except StreamError as error:
                raise CalibrationError(f"{base_url} failed a request: {error}") from error

    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=None) as client:
        loops = [asyncio.create_task(client_loop(client)) for _ in range(concurrency)]
        clock = asyncio.get_running_loop()
        began_s = clock.time()
        try:
            while (elapsed_s := clock.time() - began_s) < seconds:
                on_second(elapsed_s)
                done, _ = await asyncio.wait(
                    loops, timeout=_TICK_S, return_when=asyncio.FIRST_EXCEPTION
                )
                for loop in done:
                    loop.result()
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

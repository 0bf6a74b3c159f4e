"""Which load tells the coefficients apart? Concurrency x prompt x output x step size.

Closed loops, so that concurrency is what was asked. Called by the calibration, which reads
the steps that they cause; what a client sees does not matter here, so the engine is told lengths.
"""

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from evals.live.request_body import completion_body, new_cache_salt
from serving.contracts import Envelope, TraceRequest

_RUNGS = 6
_LONGEST = 8192
_PROMPT_SHARES = (1 / 128, 1 / 16, 1 / 4, 3 / 4)  # of the context length
_OUTPUTS = (8, 64)


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


def bodies_of(model: str, max_model_len: int, seed: int) -> Iterator[bytes]:
    """What clients send of that draw, without end."""
    salt = new_cache_salt()  # an earlier calibration's prompts may still be cached
    for index, request in cells(max_model_len, seed):
        yield json.dumps(completion_body(model, request, seed, index, cache_salt=salt)).encode()

"""Which load tells the coefficients apart? Concurrency x prompt x output x step size.

Closed loops, so that concurrency is what was asked. Called by the calibration, which reads
the steps that they cause; what a client sees does not matter here.
"""

import random
from dataclasses import dataclass

from serving.contracts import Envelope, TraceRequest

_RUNGS = 6
_CELLS = 4096  # then they come again
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


def cells(max_model_len: int, seed: int) -> list[TraceRequest]:
    """A draw from prompt x output; long prompts are rarer, not to take all."""
    context = min(max_model_len, _LONGEST)
    prompts = [max(2, int(context * share)) for share in _PROMPT_SHARES]
    weights = [1 / (prompt + context / 32) for prompt in prompts]
    rng = random.Random(f"{seed}:calibrate")
    drawn = [(rng.choices(prompts, weights)[0], rng.choice(_OUTPUTS)) for _ in range(_CELLS)]
    return [
        TraceRequest(0.0, prompt, max(1, min(output, max_model_len - prompt - 1)))
        for prompt, output in drawn
    ]

"""Which steps tell the coefficients apart? Random ones, of every shape that a server runs.

Kernels can be asked for any step, so the steps need no server and no requests. Prompt tokens are
drawn evenly up to the budget, because a loaded server fills its steps; batches and contexts evenly
on a logarithmic scale, because it runs small ones as often as large ones.
"""

import math
import random
from dataclasses import dataclass

from serving.engines.profile import EngineProfile

_SHORTEST = 64  # tokens, of a prompt or a context
_MOST_PREFILLS = 8


@dataclass(frozen=True, slots=True)
class DesignedStep:
    """One step. The prompts in it are alike, and so are the decoding requests.

    Attributes:
        prefills: prompts that are computed in it.
        prefill_tokens: tokens of them in this step, all together.
        before_tokens: tokens of them that are in the KV cache already, all together.
        decodes: requests that get one token each.
        decode_context: tokens that those have in the KV cache, all together.
    """

    prefills: int = 0
    prefill_tokens: int = 0
    before_tokens: int = 0
    decodes: int = 0
    decode_context: int = 0

    @property
    def prefill_square(self) -> int:
        """Sum over the prompts of tokens in this step times tokens before it."""
        return self.prefill_tokens * self.before_tokens // max(1, self.prefills)


def designed_steps(count: int, machine: EngineProfile, seed: int) -> list[DesignedStep]:
    """A third decodes alone, a third prompts alone, a third both; half of the prompts begin here.

    The machine's batch, step and KV cache bound a step.
    """
    rng, kv_tokens = random.Random(seed), machine.kv_blocks * machine.block_size
    steps = []
    for index in range(count):
        decodes = context = prefills = tokens = before = 0
        if index % 3 != 1:
            decodes = _between(rng, 1, machine.max_active_requests)
            longest = min(machine.max_model_len, kv_tokens // decodes)
            context = decodes * _between(rng, min(_SHORTEST, longest), longest)
        if index % 3 != 0:
            most = max(_SHORTEST, machine.token_budget - decodes)
            tokens = rng.randint(_SHORTEST, most)
            prefills = _between(rng, 1, min(_MOST_PREFILLS, tokens // _SHORTEST))
            room = min(machine.max_model_len, kv_tokens // prefills) - tokens // prefills
            if rng.random() < 0.5 and room > _SHORTEST:
                before = prefills * _between(rng, _SHORTEST, room)
        steps.append(DesignedStep(prefills, tokens, before, decodes, context))
    return steps


def _between(rng: random.Random, least: int, most: int) -> int:
    return min(most, int(math.exp(rng.uniform(math.log(least), math.log(most + 1)))))

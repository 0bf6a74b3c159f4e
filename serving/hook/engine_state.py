"""What do queue and batch look like, in the words of a snapshot? Read from the core's arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import BatchState, CostCoefficients, QueueState
from serving.core import decoding
from serving.core.cost import COEFFICIENTS
from serving.core.state import Core
from serving.hook.shedding import is_in_vain


def queue_state(
    waiting: NDArray[Any], tokens: NDArray[np.int64], sheddable: NDArray[np.bool_],
    per_token_s: float, now_s: float,
) -> QueueState:  # fmt: skip
    """The waiting queue.

    Args:
        waiting: rows of `core.requests`, shape (n,).
        tokens: prompt tokens that each has to compute, shape (n,).
        sheddable: which may be shed, shape (n,).
        per_token_s: seconds of prefill per token.
        now_s: on the engine's clock.
    """
    laxity_s = waiting["deadline_s"] - now_s - tokens * per_token_s
    possible = np.sort(laxity_s[(laxity_s >= 0) & np.isfinite(laxity_s)])
    in_vain = is_in_vain(waiting["arrival_s"], laxity_s, now_s)
    return QueueState(
        waiting=len(waiting),
        waiting_tokens=int(tokens.sum()),
        queued_prefill_s=float(tokens.sum() * per_token_s),
        oldest_wait_s=max(0.0, now_s - float(min(waiting["arrival_s"], default=now_s))),
        min_laxity_s=float(possible[0]) if len(possible) else None,
        p10_laxity_s=float(possible[len(possible) // 10]) if len(possible) else None,
        hopeless=int((laxity_s < 0).sum()),  # whether or not the policy demotes
        sheddable=int(sheddable.sum()),
        sheddable_hopeless=int((sheddable & in_vain).sum()),
    )


def batch_state(core: Core) -> BatchState:
    """The running batch, told to the core before."""
    decoding.look(core)
    engine, cost = core.engine[0], core.cost[0]
    running = core.requests[core.running[: engine["running"]]]
    slacks = np.sort(running["slack_s"][np.isfinite(running["slack_s"])])
    decodes = int(running["decoding"].sum())
    return BatchState(
        running=len(running),
        decoding=decodes,
        prefilling=len(running) - decodes,
        decode_slack_p10_s=float(slacks[len(slacks) // 10]) if len(slacks) else None,
        steps=int(engine["steps"]),
        last_step_s=float(engine["last_step_s"]),
        step_time_bias=float(cost["bias"]),
        last_token_budget=int(engine["budget"]),
    )


def coefficients(core: Core) -> CostCoefficients:
    """What a step costs, as learned by now."""
    return CostCoefficients(*(float(core.cost[name][0]) for name in COEFFICIENTS))

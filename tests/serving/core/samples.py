"""How do the core's tests fill a queue and a batch, without vLLM and without requests?"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from serving.contracts import CostCoefficients
from serving.core import queue, triage
from serving.core.keys import NUMBERS
from serving.core.state import Core, fill, new_core, nobody
from serving.policies import POLICIES

MAX_WAIT_S = 50.0


def core_of(policy: str, prefill_s_per_token: float, rows: int = 64, **engine: float) -> Core:
    """An empty queue of one tenant, `policy` in force; `engine` sets other fields of the engine."""
    core, rules = new_core(rows, 1), POLICIES[policy]
    fields = {
        "lanes": 1, "policy": NUMBERS[policy], "demotes": rules.demotes,
        "starvation_free": rules.starvation_free, "max_wait_s": MAX_WAIT_S,
        "prefill_s_per_token": prefill_s_per_token, **rules.default_params, **engine,
    }  # fmt: skip
    for name, value in fields.items():
        core.engine[name] = value
    core.tenants["weight"] = 1.0
    return core


def put(
    core: Core, row: int, deadline_s: float, prompt_tokens: int, arrival_s: float = 0.0,
    weight: float = 1.0, *, resumed: bool = False,
) -> None:  # fmt: skip
    """A request comes; a resumed one had begun to answer, and was preempted."""
    inf = math.inf
    fill(
        core, row, arrival_s, deadline_s, inf, inf, inf, prompt_tokens, 0, int(resumed), 0.0,
        weight, 0.0, 0.0, 0,
    )  # fmt: skip
    core.requests["resumed"][row] = resumed
    if resumed:
        queue.enter_first(core, row)
    else:
        queue.enter(core, row)


def step_begins(core: Core, now_s: float) -> None:
    """What comes before each step."""
    queue.advance(core, now_s)
    triage.triage(core)


def waiting(core: Core) -> list[int]:
    """Rows in the order in which they would be served."""
    rows = np.flatnonzero(core.requests["queued"])
    order: list[int] = rows[np.lexsort(core.places[rows].T[::-1])].tolist()
    return order


class Running(NamedTuple):
    """A running request as rules see it when the coming step begins."""

    slack_s: float = math.inf
    remaining: float = 100.0
    tpot_s: float = math.inf
    decoding: bool = True
    held_tokens: float = 200.0
    tokens_per_step: float = 1.0


def batch_of(
    batch: Sequence[Running], cost: CostCoefficients, margin: float = 0.0, policy: str = "fcfs",
    **engine: float,
) -> Core:  # fmt: skip
    """A core in which these run, seen before the coming step; KV blocks of one token, plenty."""
    fields = {"free_blocks": 10**9, "token_budget": 2048, "now_s": 0.0, **engine}
    core = core_of(policy, 0.01)
    for name, value in fields.items():
        core.engine[name] = value
    for row, one in enumerate(batch):
        core.requests[row] = nobody()
        for name, value in one._asdict().items():
            core.requests[name][row] = value
        core.requests["active"][row] = 1
    core.running[: len(batch)] = np.arange(len(batch))
    core.engine["running"] = len(batch)
    core.groups[:] = (1.0, math.inf)
    costs(core, cost, margin)
    return core


def costs(core: Core, cost: CostCoefficients, margin: float = 0.0) -> None:
    """Have the core believe that steps cost so much."""
    for name, value in asdict(cost).items():
        core.cost[name] = value
    core.cost["margin"] = margin


def step_s(core: Core, prefill_tokens: int, decodes: int, context: int) -> float:
    """Seconds that a step takes, as the core believes."""
    cost = core.cost[0]
    seconds = cost["base_s"] + cost["per_prefill_token_s"] * prefill_tokens
    return float(
        seconds + cost["per_decode_s"] * decodes + cost["per_context_token_s"] * context
    )

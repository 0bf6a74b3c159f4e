"""How many tokens may the next step schedule, and may it admit another request?

Pure functions called by the scheduler hook before every step; no vLLM here.
"""

import math

import numpy as np

from serving.batch import DecodeState
from serving.contracts import CostCoefficients

KVGroups = tuple[tuple[int, float], ...]  # tokens per block, most blocks of one request

# Prefill always gets this much of the decodes' own step time, so that prompts always move.
PREFILL_FLOOR = 0.25
# Aim for each token this part of a TPOT target early: it costs a request once, not each step,
# and a last step that takes longer than predicted does not miss by a hair.
AHEAD = 0.05


def slack_budget(
    cap: int, state: DecodeState, cost: CostCoefficients, margin: float, share: float = 0.0,
    context: int = 0,
) -> int:  # fmt: skip
    """Largest token budget b with (1 + margin) * T(b) <= max(slack - AHEAD * TPOT, floor).

    After QoServe's dynamic chunking (arXiv 2503.22562). Decodes that cannot reach
    their TPOT any more are left out: else one lost request would stop all prefill.

    Args:
        cap: tokens a step may schedule at most (the limit in force).
        state: the running batch.
        cost: fitted step-time coefficients.
        margin: relative safety margin on predicted times.
        share: of the step's time that prefill gets at least.
        context: tokens computed of the prompt that is served first: its attention to them
            makes a token of a long prompt's last chunks cost more than one of the first.
    """
    if cost.per_prefill_token_s <= 0.0:
        return cap
    slacks = (state.slack_s - AHEAD * state.tpot_s)[state.recoverable(cost)]
    if not len(slacks):
        return cap
    shape = state.shape
    decode_step_s = shape.seconds(cost)
    room_s = float(slacks.min()) / (1.0 + margin) - decode_step_s
    floor = max(PREFILL_FLOOR, share / (1.0 - share))
    prefill_s = max(room_s, floor * decode_step_s)
    per_token_s = cost.per_prefill_token_s + cost.per_square_s * context
    return min(cap, shape.decodes + max(1, int(prefill_s / per_token_s)))


def blocks_of(groups: KVGroups, tokens: float) -> int:
    """KV blocks that one request of so many tokens holds.

    Args:
        groups: of the KV cache, as `compat.kv_groups` gives them.
        tokens: of prompt and answer.
    """
    return int(sum(min(math.ceil(tokens / size), most) for size, most in groups))


def blocks_of_batch(groups: KVGroups, tokens: float, requests: int) -> int:
    """KV blocks that `requests` hold which have so many tokens together.

    Of full attention each one's last block is half empty on average. Of a bounded group a
    request holds at least a block and at most its bound, however the tokens are shared out.
    """
    blocks = 0.0
    for size, most in groups:
        spare = requests // 2 if most == math.inf else requests
        blocks += min(int(tokens / size) + spare, most * requests)
    return int(blocks)


def peak_tokens(tokens: np.ndarray, remaining: np.ndarray) -> float:
    """Most KV tokens that requests will hold together, if each ends when predicted.

    After the Past-Future scheduler (arXiv 2507.10150): when the request with the i-th
    most tokens to come ends, the i longest-lived ones hold what they have now and as
    many more each; the peak is the largest of these sums.

    Args:
        tokens: held now, shape (n,).
        remaining: still to come, shape (n,).
    """
    if not len(tokens):
        return 0.0
    order = np.argsort(-remaining)
    alive = np.arange(1, len(tokens) + 1)
    return float((np.cumsum(tokens[order]) + remaining[order] * alive).max())


class LoadSlide:
    """The load b of `slide`: 0 while queued prefill fits before its deadlines, 1 far beyond.

    b = (backlog / horizon - LOW) / (HIGH - LOW), clipped and rounded to quarters, with
    hysteresis, because every change re-keys the queue.
    """

    LOW, HIGH, STEP, HYSTERESIS = 0.5, 1.5, 0.25, 0.2

    def __init__(self) -> None:
        self.load = 0.0

    def update(self, backlog_s: float, horizon_s: float) -> bool:
        """Take in queued prefill seconds and the time they have; True when b changed."""
        raw = (backlog_s / max(horizon_s, 1e-3) - self.LOW) / (self.HIGH - self.LOW)
        raw = min(max(raw, 0.0), 1.0)
        if abs(raw - self.load) < self.HYSTERESIS:
            return False
        new = round(raw / self.STEP) * self.STEP
        changed = new != self.load
        self.load = new
        return changed

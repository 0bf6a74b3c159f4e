"""How many tokens may the next step schedule, and may it admit another request?

Pure functions called by the scheduler hook before every step; no vLLM here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serving.contracts import CostCoefficients
from serving.perception.cost_model import StepShape

# Prefill always gets this much of the decodes' own step time, so that prompts always move.
PREFILL_FLOOR = 0.25


@dataclass(frozen=True, slots=True)
class DecodeSlack:
    """One decoding request.

    Attributes:
        slack_s: time until its next token is due at its TPOT target's pace,
            counted from the first token, so that time saved earlier may be spent.
        expected_tokens: predicted tokens still to come.
        tpot_s: its target.
    """

    slack_s: float
    expected_tokens: float
    tpot_s: float

    def recoverable(self, decode_step_s: float) -> bool:
        """Whether decode-only steps from now on could still bring its mean TPOT to target."""
        return self.slack_s + self.expected_tokens * (self.tpot_s - decode_step_s) >= 0.0


def slack_budget(
    cap: int,
    decodes: Sequence[DecodeSlack],
    shape: StepShape,
    cost: CostCoefficients,
    margin: float,
) -> int:
    """Largest token budget b with (1 + margin) * T(b) <= max(slack, floor).

    After QoServe's dynamic chunking (arXiv 2503.22562). Decodes that cannot reach
    their TPOT any more are left out, else one lost request would stop all prefill.

    Args:
        cap: tokens a step may schedule at most (the limit in force).
        decodes: slack of the running decodes with a TPOT target.
        shape: the decode part of the coming step (no prefill tokens).
        cost: fitted step-time coefficients.
        margin: relative safety margin on predicted times.
    """
    if not decodes or cost.per_prefill_token_s <= 0.0:
        return cap
    decode_step_s = shape.seconds(cost)
    slacks = [d.slack_s for d in decodes if d.recoverable(decode_step_s)]
    if not slacks:
        return cap
    room_s = min(slacks) / (1.0 + margin) - decode_step_s
    prefill_s = max(room_s, PREFILL_FLOOR * decode_step_s)
    return min(cap, shape.decodes + max(1, int(prefill_s / cost.per_prefill_token_s)))


def kv_allows(peak_blocks: float, next_blocks: float, total_blocks: int, reserve: float) -> bool:
    """Whether admitting a request keeps the predicted KV peak under (1 - reserve) of capacity."""
    return peak_blocks + next_blocks <= (1.0 - reserve) * total_blocks


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

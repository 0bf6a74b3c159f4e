"""Which decodes skip the coming step? The rule `pace`.

A step in which all requests decode is as long as the batch is large. Answers with a tighter TPOT
target than that miss it, while the others get tokens long before they are due. vLLM serves every
request that it finds in the batch. So requests whose next token can wait are hidden from it for a
step: tight targets are met, prompts find room, and no token is lost. Pure functions of the batch;
called by `StepControl`.
"""

import math

import numpy as np

from serving.batch import DecodeState
from serving.contracts import CostCoefficients
from serving.step_limits import AHEAD, PREFILL_FLOOR

# While prompts wait, decodes get the time that their paces need, times this: with less, answers
# end later and hold their KV blocks longer; with more, prompts wait longer.
HASTE = 1.4
# A request without a TPOT target, or that has missed it, decodes every so many steps. At least one
# in so many of the batch decodes in any step.
TURNS = 4


def resting(
    state: DecodeState, cost: CostCoefficients, margin: float, *, prompts_wait: bool, step: int
) -> np.ndarray:
    """Mask of shape (running,): the decodes that skip the step, because it has to be shorter.

    Decodes take part in order of their due times (`slack_s` less `AHEAD` of the target), as many
    as a step holds that ends before the tightest token is due. If all fit the step, none skip.
    While prompts wait, decodes get `HASTE` times the time that all their paces need, and prompts
    get the rest of the step.

    Args:
        state: the running batch.
        cost: fitted step-time coefficients.
        margin: relative safety margin on predicted times.
        prompts_wait: whether prefill could use the time.
        step: counts up; says which of the requests without a pace decode.
    """
    skip = np.zeros(len(state.tokens), bool)
    keeps = keeps_pace(state, cost)
    if not keeps.any():
        return skip
    each_s = _each_s(state, cost)
    slack_s = state.slack_s - AHEAD * state.tpot_s
    room_s = float(slack_s[keeps].min()) / (1.0 + margin)
    room_s = room_s / (1.0 + PREFILL_FLOOR * prompts_wait) - cost.base_s
    if prompts_wait:
        tightest_s = float(_pace_s(state)[keeps].min())
        room_s = min(room_s, HASTE * float((each_s * _share(state, tightest_s)).sum()))
    decoding = np.flatnonzero(state.decoding)
    if each_s[decoding].sum() <= room_s:
        return skip
    starts = (state.tpot_s > 0.0) & np.isinf(state.slack_s)  # it has no first token yet
    its_turn = (np.arange(len(keeps)) + step) % TURNS == 0
    due_s = np.where(keeps, slack_s, np.where(starts | its_turn, -np.inf, np.inf))
    order = decoding[np.argsort(due_s[decoding], kind="stable")]
    fits = int(np.searchsorted(np.cumsum(each_s[order]), room_s, side="right"))
    skip[order[max(fits, math.ceil(len(order) / TURNS)) :]] = True
    return skip


def keeps_pace(state: DecodeState, cost: CostCoefficients) -> np.ndarray:
    """Which decodes can still reach their mean TPOT if from now on each goes at its own pace.

    For a pace tau, the target times the tokens that a step brings, a step then takes
    base + sum over j of c_j min(1, tau / tau_j) on average, with c_j the time that decode j
    adds. In `DecodeState.recoverable` all decode in every step.
    """
    each_s = _each_s(state, cost)
    found = np.zeros(len(each_s), bool)
    pace_s, steps = _pace_s(state), state.remaining / state.tokens_per_step
    for tau_s in np.unique(pace_s[state.decoding & (pace_s > 0.0)]):
        step_s = cost.base_s + float((each_s * _share(state, tau_s)).sum())
        in_time = state.slack_s + steps * (tau_s - step_s) >= 0.0
        found |= (pace_s == tau_s) & in_time
    found &= state.decoding & np.isfinite(state.slack_s)
    return found


def _each_s(state: DecodeState, cost: CostCoefficients) -> np.ndarray:
    """What each decode adds to a step, on average if a step takes along only a share."""
    each_s = cost.per_decode_s + cost.per_context_token_s * state.tokens
    return np.where(state.decoding, each_s * state.turns, 0.0)


def _pace_s(state: DecodeState) -> np.ndarray:
    """How long a step may take for each to keep its TPOT; 0 without a target."""
    return state.tpot_s * state.tokens_per_step


def _share(state: DecodeState, tau_s: float) -> np.ndarray:
    """In which share of the steps of a pace `tau_s` each has to take part."""
    pace_s = _pace_s(state)
    share: np.ndarray = np.minimum(1.0, tau_s / np.where(pace_s > 0.0, pace_s, TURNS * tau_s))
    return share

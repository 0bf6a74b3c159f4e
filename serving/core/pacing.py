"""Which decodes skip the coming step? The rule `pace`.

A step in which all requests decode is as long as the batch is large. Answers with a tighter TPOT
target than that miss it, while the others get tokens long before they are due. vLLM serves every
request that it finds in the batch. So requests whose next token can wait are hidden from it for a
step: tight targets are met, prompts find room, and no token is lost.
"""

import math

import numpy as np

from serving.core.decoding import AHEAD, PREFILL_FLOOR, gain_of, is_short_of_blocks
from serving.core.heap import is_before
from serving.core.jit import compiled_in_place
from serving.core.state import Core

# While prompts wait, decodes get the time that their paces need, times this: with less, answers
# end later and hold their KV blocks longer; with more, prompts wait longer.
HASTE = 1.4
# A request without a TPOT target, or that has missed it, decodes every so many steps. At least one
# in so many of the batch decodes in any step.
TURNS = 4


@compiled_in_place
def rest(core: Core, prompts_wait: bool) -> None:
    """Hide decodes from the coming step that can wait, because it has to be shorter.

    Decodes take part in order of their due times (slack less `AHEAD` of the target), as many
    as a step holds that ends before the tightest token is due. If all fit the step, none skip.
    While prompts wait, decodes get `HASTE` times the time that all their paces need, and prompts
    get the rest of the step. None skip while blocks run out: vLLM preempts only requests that it
    sees. Requests that wait for a first token or have a LoRA go on: vLLM counts the LoRAs of
    the requests that it sees. Weights do nothing: who can be in time is so either way.

    Args:
        core: after `look`.
        prompts_wait: whether prefill could use the time.
    """
    engine, cost, count = core.engine[0], core.cost[0], core.engine[0].running
    engine.resting = 0
    engine.paced_steps += 1
    if is_short_of_blocks(core):
        return
    for i in range(count):
        one = core.requests[core.running[i]]
        one.each_s = one.pace_s = 0.0
        if one.decoding:
            added_s = cost.per_decode_s + cost.per_context_token_s * one.held_tokens
            one.each_s = added_s * engine.turns
        if one.tpot_s < math.inf:
            one.pace_s = one.tpot_s * gain_of(core, core.running[i]) * engine.turns
    room_s, tightest_s, all_s = math.inf, math.inf, 0.0
    for i in range(count):
        one = core.requests[core.running[i]]
        all_s += one.each_s
        one.keeps_pace = _keeps_pace(core, i)
        if one.keeps_pace:
            room_s = min(room_s, one.slack_s - AHEAD * one.tpot_s)
            tightest_s = min(tightest_s, one.pace_s)
    if tightest_s == math.inf:
        return
    room_s = room_s / (1.0 + cost.margin)
    room_s = room_s / (1.0 + PREFILL_FLOOR * prompts_wait) - cost.base_s
    if prompts_wait:
        room_s = min(room_s, HASTE * _needed_s(core, tightest_s))
    if all_s > room_s:
        _hide(core, room_s)


@compiled_in_place
def _hide(core: Core, room_s: float) -> None:
    engine, dues, found = core.engine[0], core.ranks, 0
    for i in range(engine.running):
        one = core.requests[core.running[i]]
        if not one.decoding:
            continue
        starts = one.tpot_s < math.inf and one.slack_s == math.inf  # it has no first token yet
        its_turn = (i + engine.paced_steps) % TURNS == 0
        due_s = math.inf
        if one.keeps_pace:
            due_s = one.slack_s - AHEAD * one.tpot_s
        elif starts or its_turn:
            due_s = -math.inf
        dues[found, 0], dues[found, 1], dues[found, 2] = due_s, i, one.each_s
        found += 1
    for place in range(_that_fit(dues, found, math.ceil(found / TURNS), room_s), found):
        one = core.requests[core.running[int(dues[place, 1])]]
        if not one.lora and not one.prefilling:
            one.hidden = 1
            engine.resting += 1
    engine.rested_decodes += engine.resting


@compiled_in_place
def _that_fit(dues: np.ndarray, count: int, least: int, room_s: float) -> int:
    """Bring those to the front that are due first and fit the room; returns how many, or `least`.

    As quickselect (Hoare 1961): what is sure to take part, or not to, need not be sorted.

    Args:
        dues: when due, place in the running list and time of each, in its first three columns.
        count: how many there are.
        least: so many take part, whether they fit or not.
        room_s: for all that take part.
    """
    low, high, used_s = 0, count, 0.0
    while low < high:
        middle, last, split, sum_s = (low + high) // 2, high - 1, low, used_s
        _swap(dues, middle, last)
        for i in range(low, high):
            if not is_before(dues, last, i):  # up to the pivot itself
                sum_s += dues[i, 2]
                _swap(dues, i, split)
                split += 1
        if sum_s <= room_s or split <= least:
            low, used_s = split, sum_s
        else:
            high = split - 1
    return low


@compiled_in_place
def _swap(rows: np.ndarray, one: int, other: int) -> None:
    for column in range(3):
        rows[one, column], rows[other, column] = rows[other, column], rows[one, column]


@compiled_in_place
def _keeps_pace(core: Core, i: int) -> bool:
    """Whether a decode can still reach its mean TPOT if from now on each goes at its own pace.

    For a pace tau, the target times the tokens that a step brings, a step then takes
    base + sum over j of c_j min(1, tau / tau_j) on average, with c_j the time that decode j
    adds. For `slack` all decode in every step.
    """
    engine, one = core.engine[0], core.requests[core.running[i]]
    one.pace_step_s = math.nan
    if not one.decoding or one.slack_s == math.inf or one.pace_s <= 0.0:
        return False
    for k in range(i):  # there are few paces: most are known from an earlier request
        other = core.requests[core.running[k]]
        if other.pace_s == one.pace_s and not math.isnan(other.pace_step_s):
            one.pace_step_s = other.pace_step_s
            break
    if math.isnan(one.pace_step_s):
        one.pace_step_s = core.cost[0].base_s + _needed_s(core, one.pace_s)
    steps = one.remaining / (gain_of(core, core.running[i]) * engine.turns)
    return bool(one.slack_s + steps * (one.pace_s - one.pace_step_s) >= 0.0)


@compiled_in_place
def _needed_s(core: Core, tau_s: float) -> float:
    """Time of decodes in a step of pace `tau_s` on average, if each goes at its own pace."""
    total_s = 0.0
    for i in range(core.engine[0].running):
        one = core.requests[core.running[i]]
        pace_s = one.pace_s if one.pace_s > 0.0 else TURNS * tau_s
        total_s += one.each_s * min(1.0, tau_s / pace_s)
    return total_s

"""Which engine gives a request its first token in time? What a router knows, and how it chooses.

An engine says how many seconds of prefill it owes, by when they are due (`look`). A router keeps
that for each engine (`HINT`), takes off the time that has passed since, adds what it has sent
(`sent`), and chooses by it (`choose`). The same functions route in Ray and in virtual time.
"""

import numpy as np

from serving.contracts.state import WITHIN_S, RoutingHint
from serving.core.control import prefill_rate
from serving.core.cost import step_seconds
from serving.core.jit import compiled_in_place
from serving.core.standing import FIRST, NORMAL
from serving.core.state import NONE, Core

# A prompt's own prefill delays whoever comes after it, too. Chosen among 0, 1, 2, 4, 8 and 16 on
# the development half of `evals/suites/sessions.toml`.
OWN = 8.0
HINT = np.dtype([
    # Seconds of prefill that come before a request which is due within each of WITHIN_S, and, in
    # the last place, before one that is never due: also what can no longer be in time.
    ("prefill_due_s", "f8", (len(WITHIN_S) + 1,)),
    ("prefill_s_per_token", "f8"),
    ("decode_step_s", "f8"),  # a step of all that decode, without prompts
    ("known_s", "f8"),  # when that was so, on the clock of whoever chooses
])  # fmt: skip


def hint_of(row: np.void, learned: bool = True) -> RoutingHint:
    """A row of HINT as a message."""
    due_s = tuple(row["prefill_due_s"].tolist())
    per_token_s, step_s = float(row["prefill_s_per_token"]), float(row["decode_step_s"])
    return RoutingHint(due_s, per_token_s, step_s, learned)


def take_in(hints: np.ndarray, k: int, hint: RoutingHint, now_s: float) -> None:
    """Write into row `k` of HINT what an engine has said of now."""
    hints[k] = (hint.prefill_due_s, hint.prefill_s_per_token, hint.decode_step_s, now_s)


@compiled_in_place
def look(core: Core, hints: np.ndarray, k: int, now_s: float) -> None:
    """Write into row `k` of HINT what an engine owes now; O(waiting + running).

    What runs was told to the core before. A prompt that has begun, or that has waited too long,
    comes before all others.
    """
    engine, requests, hint = core.engine[0], core.requests, hints[k]
    per_token_s, due_s = prefill_rate(core), hint.prefill_due_s
    last, decodes, context = len(WITHIN_S), 0, 0
    for i in range(last + 1):
        due_s[i] = 0.0
    for i in range(engine.running):
        one = requests[core.running[i]]
        if one.prefilling:
            due_s[0] += max(0, one.start_tokens - one.computed_tokens) * per_token_s
        else:
            decodes += 1
            context += one.computed_tokens
    row = engine.front
    while row != NONE:
        one, place = requests[row], last
        if one.standing == FIRST:
            place = 0
        elif one.standing == NORMAL:
            place = _place_of(one.deadline_s - now_s)
        due_s[place] += one.prompt_tokens * per_token_s
        row = one.behind
    for i in range(last):
        due_s[i + 1] += due_s[i]
    hint.prefill_s_per_token, hint.known_s = per_token_s, now_s
    hint.decode_step_s = step_seconds(core.cost, 0, decodes, context, 0)


@compiled_in_place
def choose(
    hints: np.ndarray, tokens: np.ndarray, target_s: float, now_s: float, first: int
) -> int:
    """The engine for a request: of those that are in time, the one that it costs least.

    That is the time to its first token, and its own prefill for others that wait for it, now or
    later. What that costs differs little between engines, and their estimates of it do: so a token
    counts there as all engines have it on average. Where all are late, the request waits behind
    everything that can be in time.

    Args:
        hints: HINT (engines,).
        tokens: of the prompt that each engine would have to compute, shape (engines,).
        target_s: TTFT that was promised; may be infinite.
        now_s: on the clock of `known_s`.
        first: who counts first where several are equal.
    """
    best = _cheapest(hints, tokens, target_s, now_s, first)
    if best == NONE:
        best = _cheapest(hints, tokens, np.inf, now_s, first)
    return best


@compiled_in_place
def sent(hints: np.ndarray, k: int, tokens: float, target_s: float, now_s: float) -> None:
    """A prompt of which so many tokens are to be computed went to an engine."""
    hint, own = hints[k], _place_of(target_s)
    for i in range(len(WITHIN_S) + 1):
        left_s = _owed_s(hints, k, i, now_s)
        hint.prefill_due_s[i] = left_s + (tokens * hint.prefill_s_per_token if i >= own else 0.0)
    hint.known_s = now_s


@compiled_in_place
def _cheapest(
    hints: np.ndarray, tokens: np.ndarray, target_s: float, now_s: float, first: int
) -> int:
    """Of the engines that are in time, the one that a request costs least, or NONE."""
    best, least_s, per_token_s = NONE, np.inf, 0.0
    for k in range(len(hints)):
        per_token_s += hints[k].prefill_s_per_token / len(hints)
    for i in range(len(hints)):
        k = (first + i) % len(hints)
        after_s = _expected_s(hints, k, tokens[k], target_s, now_s)
        cost_s = after_s + OWN * tokens[k] * per_token_s
        if after_s <= target_s and cost_s < least_s:
            best, least_s = k, cost_s
    return int(best)


@compiled_in_place
def _expected_s(
    hints: np.ndarray, k: int, tokens: float, target_s: float, now_s: float
) -> float:
    """Seconds to the first token of a prompt of which so many tokens are to be computed."""
    hint, ahead_s = hints[k], _owed_s(hints, k, _place_of(target_s), now_s)
    return float(ahead_s + hint.decode_step_s + tokens * hint.prefill_s_per_token)


@compiled_in_place
def _owed_s(hints: np.ndarray, k: int, place: int, now_s: float) -> float:
    """What is left by now of what an engine owed."""
    hint = hints[k]
    return float(max(0.0, hint.prefill_due_s[place] - (now_s - hint.known_s)))


@compiled_in_place
def _place_of(within_s: float) -> int:
    """The first of WITHIN_S that is as long."""
    place = 0
    while place < len(WITHIN_S) and WITHIN_S[place] < within_s:
        place += 1
    return place

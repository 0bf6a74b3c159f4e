"""What happens to requests between arrival and end, and what is learned from each step?

The driver calls these at vLLM's events, in vLLM's order.
"""

import math

import numpy as np

from serving.core import cost as costs
from serving.core.jit import compiled_in_place
from serving.core.state import Core
from serving.core.tenants import count_decodes

_FADE = 0.98
_LEARN_EVERY, _LEARNED = 4, 512  # pure decode steps are many and alike
_LEAST_TURNS = 0.05
_FOLLOW, _FOLLOW_ALL = 0.125, 0.05  # weight of a new figure: of one request, of the batch


@compiled_in_place
def arrive(core: Core, row: int, mean_tokens: float, q90_tokens: float) -> None:
    """A request comes in whose answer is predicted to have so many tokens.

    Filled in are its arrival, weight, targets, prompt, cached and most tokens, and its lane. The
    deadline is when the first token is due: a + S, or a + E - L*P when only the end is promised.
    Infinite without an SLO.
    """
    one, engine = core.requests[row], core.engine[0]
    most = float(one.max_tokens)
    one.predicted_output_tokens = one.expected_tokens = min(mean_tokens, most)
    one.q90_output_tokens = min(q90_tokens, most)
    steps = one.expected_tokens / (engine.tokens_per_decode * engine.turns)
    decode_s = steps * max(engine.last_step_s, core.cost[0].base_s)
    one.deadline_s = one.arrival_s + one.ttft_s
    if one.e2e_s < math.inf:
        one.deadline_s = min(one.deadline_s, one.arrival_s + max(one.e2e_s - decode_s, 0.0))
    if one.ttft_s < math.inf:
        engine.mean_ttft_target_s += 0.05 * (one.ttft_s - engine.mean_ttft_target_s)
    one.prompt_tokens = one.whole_prompt_tokens - one.cached_tokens
    one.attained_tokens = one.output_tokens = one.computed_tokens = one.late_gaps = 0
    engine.least_itl_s = min(engine.least_itl_s, one.itl_s)
    one.first_token_s = one.last_token_s = math.inf
    one.admitted, one.active, one.policy = 0, 0, -1
    core.tenants[one.tenant].inside += 1
    engine.arrivals += 1
    core.tenants[one.tenant].entered = engine.arrivals


@compiled_in_place
def refresh(core: Core, row: int, cached_tokens: int) -> bool:
    """What a request that is queued again, or waits, still has to compute; whether that changed."""
    one = core.requests[row]
    tokens = one.whole_prompt_tokens + one.output_tokens - cached_tokens
    if (
        tokens == one.prompt_tokens
        and cached_tokens == one.cached_tokens
        and one.output_tokens == one.attained_tokens
    ):
        return False
    left = max(1.0, one.expected_tokens - one.output_tokens)
    one.q90_output_tokens = max(left, one.q90_output_tokens - one.output_tokens)
    one.predicted_output_tokens = left
    one.prompt_tokens, one.cached_tokens = tokens, cached_tokens
    one.attained_tokens = one.output_tokens
    return True


@compiled_in_place
def admit(core: Core, row: int, mean_tokens: float) -> None:
    """A request was scheduled for the first time, or after a preemption.

    Args:
        core: with its `computed_tokens` before this step.
        row: of the request.
        mean_tokens: the predicted length of its answer now, which counts the first time.
    """
    one, engine = core.requests[row], core.engine[0]
    if not one.admitted:
        one.admitted, one.epoch, one.policy = 1, engine.epoch, engine.policy
        one.expected_tokens = min(mean_tokens, float(one.max_tokens))
    if one.active:
        return
    one.start_tokens = one.whole_prompt_tokens + one.output_tokens
    one.seen_tokens = one.output_tokens
    one.active, one.prefilling, one.tokens_per_step = 1, 1, engine.tokens_per_decode
    core.tenants[one.tenant].running += 1
    core.running[engine.running] = row
    engine.running += 1


@compiled_in_place
def remove(core: Core, row: int) -> None:
    """A request runs no more, or lost its KV blocks; nothing happens if it did not run."""
    one = core.requests[row]
    if one.active:
        one.active = 0
        _take_out(core, row)
        lane = core.tenants[one.tenant]
        lane.running -= 1
        lane.decoding -= not one.prefilling


@compiled_in_place
def _take_out(core: Core, row: int) -> None:
    engine, place = core.engine[0], core.engine[0].running - 1  # a preempted one is the last
    while place >= 0 and core.running[place] != row:
        place -= 1
    if place >= 0:
        engine.running -= 1
        for i in range(place, engine.running):
            core.running[i] = core.running[i + 1]


@compiled_in_place
def leave(core: Core, row: int) -> None:
    """A request has left the engine."""
    remove(core, row)
    core.tenants[core.requests[row].tenant].inside -= 1


@compiled_in_place
def note_scheduled(
    core: Core, rows: np.ndarray, tokens: np.ndarray, pipelined: bool
) -> tuple[int, int, int, int, bool]:
    """A step was scheduled: these requests compute so many tokens.

    Args:
        core: with their `computed_tokens` before; `running` as planned.
        rows: of the requests, shape (n,).
        tokens: of this step, shape (n,).
        pipelined: whether several steps are in flight, each with other requests.

    Returns:
        the step's shape as `core.cost` has it (prefill tokens, decodes, their context, square),
        and whether it leaves prompt over.
    """
    engine, requests = core.engine[0], core.requests
    prefill_tokens = decodes = context = square = answering = could = 0
    for i in range(len(rows)):
        one, count = requests[rows[i]], tokens[i]
        before = one.computed_tokens
        one.computed_tokens += count
        if one.prefilling and before < one.whole_prompt_tokens + one.output_tokens:
            prefill_tokens += count
            square += count * before
            continue
        decodes += 1
        if not one.prefilling:
            context += one.computed_tokens
            answering += 1
    full = False
    for i in range(engine.running):
        one = requests[core.running[i]]
        full = full or _is_partial(core, core.running[i])
        could += one.active and not one.prefilling and not one.hidden
    if pipelined and could > 0:
        engine.turned += 1
        weight = max(_FOLLOW_ALL, 1.0 / engine.turned)
        share = min(1.0, answering / could)
        engine.turns = max(_LEAST_TURNS, engine.turns + weight * (share - engine.turns))
    return prefill_tokens, decodes, context, square, full


@compiled_in_place
def _is_partial(core: Core, row: int) -> bool:
    one = core.requests[row]
    known = one.whole_prompt_tokens + one.output_tokens
    return bool(one.active and one.prefilling and one.computed_tokens < known)


@compiled_in_place
def learn_step(
    core: Core, prefill_tokens: int, decodes: int, context: int, square: int, seconds: float,
    full: bool,
) -> None:  # fmt: skip
    """A step of this shape took so long; `full`: it left prompt over."""
    engine = core.engine[0]
    if full:
        engine.full_s = _FADE * engine.full_s + seconds
        engine.full_tokens = _FADE * engine.full_tokens + prefill_tokens
    engine.steps += 1
    engine.last_step_s = seconds
    if decodes and not prefill_tokens:
        engine.decode_shape[0], engine.decode_shape[1] = decodes, context
        if core.cost[0].samples > _LEARNED and engine.steps % _LEARN_EVERY:
            return
    costs.learn(core.cost, prefill_tokens, decodes, context, square, seconds)


@compiled_in_place
def begin_decoding(core: Core, row: int) -> None:
    """The prompt of a running request is computed, and a token came."""
    one = core.requests[row]
    one.prefilling = 0
    core.tenants[one.tenant].decoding += 1


@compiled_in_place
def note_tokens(
    core: Core, count: int, now_s: float, groups: np.ndarray, gaps_s: np.ndarray
) -> int:
    """The step that ends now was reported: first tokens, inter-token gaps, and the tenants' work.

    Several tokens of one step have one gap, as in vLLM's own metric; a first token has none.
    Decodes that got no token were not in the step.

    Args:
        core: with `output_tokens` of the first `count` of `running` as reported.
        count: requests that run.
        now_s: when the step ended.
        groups: takes the histograms' number of each gap, shape (count,).
        gaps_s: takes the gaps.

    Returns:
        how many gaps there are.
    """
    engine, requests, tenants = core.engine[0], core.requests, core.tenants
    for i in range(engine.lanes):
        tenants[i].silent = 0
    gaps, gained = 0, 0
    for i in range(count):
        one = requests[core.running[i]]
        if not one.active:
            continue
        tokens = one.output_tokens - one.seen_tokens
        if tokens <= 0:
            if not one.prefilling:
                tenants[one.tenant].silent += 1
            continue
        if one.prefilling:
            begin_decoding(core, core.running[i])
            if one.first_token_s == math.inf:
                one.first_token_s = now_s
        if one.last_token_s < math.inf:
            groups[gaps], gaps_s[gaps] = one.histogram, now_s - one.last_token_s
            if gaps_s[gaps] > engine.least_itl_s:
                one.late_gaps += gaps_s[gaps] > one.itl_s
            gaps += 1
            gained += tokens
            one.tokens_per_step += _FOLLOW * (tokens - one.tokens_per_step)
        one.seen_tokens, one.last_token_s = one.output_tokens, now_s
    if engine.drafts and gaps:
        engine.gains += 1
        weight = max(_FOLLOW_ALL, 1.0 / engine.gains)
        engine.tokens_per_decode += weight * (gained / gaps - engine.tokens_per_decode)
    count_decodes(core)
    return gaps

"""How do the decodes of the running batch stand, and how much time do they leave? Rule `slack`.

`look` notes for each running request what the formulas need, before each step that a rule sizes.
"""

import math

from serving.core.cost import step_seconds
from serving.core.jit import compiled_in_place
from serving.core.sorting import sort
from serving.core.state import Core

# Prefill always gets this much of the decodes' own step time, so that prompts always move.
PREFILL_FLOOR = 0.25
# Aim for each token this part of a TPOT target early: it costs a request once, not each step,
# and a last step that takes longer than predicted does not miss by a hair.
AHEAD = 0.05
_AT_LEAST_TOKENS = 16.0  # expected of an answer that has outgrown its prediction
_QUARTERS = 4.0  # tokens per step are told apart by quarters, so that few paces differ


@compiled_in_place
def look(core: Core) -> None:
    """Note of each running request how it stands when the coming step begins.

    `slack_s` is the time until the tokens of that step are due at the TPOT target's pace, counted
    from the first token, so that time saved earlier may be spent; infinite without a target or
    before the first token. `remaining` are predicted tokens still to come, `held_tokens` those of
    prompt and answer so far, in flight included; 0 of a request whose admission was not noted.
    """
    engine, requests = core.engine[0], core.requests
    for i in range(engine.running):
        one = requests[core.running[i]]
        tokens = one.computed_tokens
        one.decoding = one.active and tokens >= one.start_tokens
        produced = max(tokens - one.whole_prompt_tokens + 1.0, 0.0)
        if engine.drafts and one.decoding:  # not all drafts in flight will be right
            known = one.whole_prompt_tokens + one.output_tokens
            in_flight = max(tokens + 1.0 - known, 0.0)
            produced -= in_flight * (1.0 - gain_of(core, core.running[i]) / (1.0 + engine.drafts))
        one.slack_s = math.inf
        if one.decoding and one.first_token_s < math.inf and one.tpot_s < math.inf:
            per_step = gain_of(core, core.running[i]) * engine.turns
            due_s = one.first_token_s + one.tpot_s * (produced + per_step - 1.0)
            one.slack_s = due_s - engine.start_s
        one.remaining = one.held_tokens = 0.0
        if one.active:
            one.remaining = max(one.expected_tokens - produced, _AT_LEAST_TOKENS)
            one.held_tokens = max(tokens, one.start_tokens)


@compiled_in_place
def gain_of(core: Core, row: int) -> float:
    """Tokens that a decode gets from a step it is in; more than 1 where vLLM speculates."""
    if not core.engine[0].drafts:
        return 1.0
    quarters = math.floor(core.requests[row].tokens_per_step * _QUARTERS + 0.5)
    return float(max(quarters / _QUARTERS, 1.0))


@compiled_in_place
def decodes(core: Core) -> tuple[int, int]:
    """Decodes of the coming step and their context, those that skip it left out."""
    engine, count, held = core.engine[0], 0, 0.0
    for i in range(engine.running):
        one = core.requests[core.running[i]]
        if one.decoding and not one.hidden:
            count += 1
            held += one.held_tokens
    return round(engine.turns * count), int(engine.turns * held)


@compiled_in_place
def slack_budget(core: Core, share: float, context: int) -> int:
    """Largest token budget b with (1 + margin) * T(b) <= max(slack - AHEAD * TPOT, floor).

    After QoServe's dynamic chunking (arXiv 2503.22562). Decodes that cannot reach
    their TPOT any more are left out: else one lost request would stop all prefill.

    Args:
        core: after `look`.
        share: of the step's time that prefill gets at least.
        context: tokens computed of the prompt that is served first: its attention to them
            makes a token of a long prompt's last chunks cost more than one of the first.
    """
    engine, cost = core.engine[0], core.cost[0]
    cap = engine.token_budget
    if cost.per_prefill_token_s <= 0.0:
        return int(cap)
    count, held = decodes(core)
    decode_step_s = step_seconds(core.cost, 0, count, held, 0)
    least_s = math.inf
    for i in range(engine.running):
        one = core.requests[core.running[i]]
        if one.hidden or one.slack_s == math.inf:
            continue
        spare_s = one.tpot_s - decode_step_s / (gain_of(core, core.running[i]) * engine.turns)
        if one.slack_s + one.remaining * spare_s >= 0.0:  # it can still reach its mean TPOT
            least_s = min(least_s, one.slack_s - AHEAD * one.tpot_s)
    if least_s == math.inf:
        return int(cap)
    room_s = least_s / (1.0 + cost.margin) - decode_step_s
    floor = max(PREFILL_FLOOR, share / (1.0 - share))
    prefill_s = max(room_s, floor * decode_step_s)
    per_token_s = cost.per_prefill_token_s + cost.per_square_s * context
    return int(min(cap, count + max(1, int(min(prefill_s / per_token_s, 1e9)))))


@compiled_in_place
def blocks_of(core: Core, tokens: float) -> int:
    """KV blocks that one request of so many tokens of prompt and answer holds."""
    blocks = 0.0
    for i in range(len(core.groups)):
        blocks += min(math.ceil(tokens / core.groups[i, 0]), core.groups[i, 1])
    return int(blocks)


@compiled_in_place
def blocks_of_batch(core: Core, tokens: float, requests: int) -> int:
    """KV blocks that `requests` hold which have so many tokens together.

    Of full attention each one's last block is half empty on average. Of a bounded group a
    request holds at least a block and at most its bound, however the tokens are shared out.
    """
    blocks = 0.0
    for i in range(len(core.groups)):
        size, most = core.groups[i, 0], core.groups[i, 1]
        spare = requests // 2 if most == math.inf else requests
        blocks += min(math.floor(tokens / size) + spare, most * requests)
    return int(blocks)


@compiled_in_place
def peak_blocks(core: Core) -> int:
    """KV blocks at the predicted peak of the running batch (after `look`), shared ones once.

    After the Past-Future scheduler (arXiv 2507.10150): when the request with the i-th
    most tokens to come ends, the i longest-lived ones hold what they have now and as
    many more each; the peak is the largest of these sums.
    """
    engine, ranks, rows = core.engine[0], core.ranks, core.picked[0]
    held = alive = peak = 0.0
    for i in range(engine.running):
        row = core.running[i]
        held += core.requests[row].held_tokens
        ranks[row, 0], ranks[row, 1] = -core.requests[row].remaining, i
        rows[i] = row
    sort(ranks, rows, engine.running)
    for i in range(engine.running):
        one = core.requests[rows[i]]
        alive += one.held_tokens
        peak = max(peak, alive + one.remaining * (i + 1))
    shared = 0
    if engine.prefix_caching:
        shared = max(0, blocks_of_batch(core, held, engine.running) - engine.used_blocks)
    return blocks_of_batch(core, peak, engine.running) - shared


@compiled_in_place
def is_short_of_blocks(core: Core) -> bool:
    """Whether the coming step may use up the KV blocks."""
    engine, need = core.engine[0], 0.0
    for i in range(len(core.groups)):
        need += engine.running + engine.budget // core.groups[i, 0]
    return bool(engine.free_blocks <= need)

"""May the waiting head go before partly prefilled prompts? Half of the rule `serial`.

vLLM serves what runs before what waits, so a long prompt holds up every short one that
comes after its first step.
"""

from serving.core.decoding import blocks_of
from serving.core.jit import compiled_in_place
from serving.core.queue import pick, place_of
from serving.core.standing import hopeless_s
from serving.core.state import KEY, KEY_2, STANDING, Core

_CAN_WAIT = 4.0  # times the head's prefill: a partial prefill yields only with this much time left


@compiled_in_place
def rest_of(core: Core, row: int) -> int:
    """Prompt tokens that are left to compute of a request whose prefill has begun.

    At least one: vLLM computes the last token, even if all KV was loaded.
    """
    one = core.requests[row]
    return int(max(1, one.whole_prompt_tokens + one.output_tokens - one.computed_tokens))


@compiled_in_place
def make_room(core: Core, room: int) -> None:
    """Let the waiting head pass prefills of higher place: hides some, or sets a threshold.

    If the head needs at most half of the step's prefill tokens, a threshold bounds the first
    partial prefill, and the others skip the step. For a longer head, all partial prefills
    that must yield skip it. At least every other step serves them, should the head not be
    admitted after all (KV blocks, LoRA slots). Weights act through the places.

    Args:
        core: with the threshold in force in `engine.threshold`.
        room: prefill tokens of the step.
    """
    engine, requests = core.engine[0], core.requests
    yielded_last, engine.yielded_last = engine.yielded_last, 0
    if engine.shares or yielded_last or not engine.head_can_start:
        return
    head = pick(core)
    tokens = requests[head].prompt_tokens
    pass_s = _CAN_WAIT * tokens * engine.prefill_s_per_token
    begin, behind = engine.running - engine.partial, 0
    for i in range(begin, engine.running):
        behind += _may_wait(core, core.running[i], head, pass_s)
    if not behind or engine.free_blocks < blocks_of(core, tokens + 1) + engine.running:
        return
    engine.passes = 1
    engine.yielded_prefills += behind
    if 2 * tokens <= room and not engine.threshold and behind == engine.partial:
        engine.threshold = max(1, room - tokens)
        begin += 1  # the first one goes on, up to the threshold
    for i in range(begin, engine.running):
        if _may_wait(core, core.running[i], head, pass_s):
            requests[core.running[i]].hidden = 1
            engine.yielding += 1
    engine.yielded_last = engine.yielding > 0


@compiled_in_place
def _may_wait(core: Core, row: int, head: int, pass_s: float) -> bool:
    # vLLM counts the LoRAs of the requests that it sees. One that skips must have none, or
    # the next step may hold more than max_loras, which vLLM asserts.
    one, engine, place = core.requests[row], core.engine[0], core.places[head]
    if one.lora:
        return False
    # Work on a prefill that then misses its deadline is lost: a prefill yields only while it
    # has time, or when it is late already.
    rest = rest_of(core, row)
    standing, first, second = place_of(core, row, rest)
    if (place[STANDING], place[KEY], place[KEY_2]) >= (standing, first, second):
        return False
    spare_s = hopeless_s(one.deadline_s, rest, engine.prefill_s_per_token) - engine.now_s
    return not 0.0 <= spare_s < pass_s

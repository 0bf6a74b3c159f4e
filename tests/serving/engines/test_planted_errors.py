"""Would the comparison with vLLM's scheduler find an error in the compiled loop?

The loop's sources are changed as text and run without the compiler, on cases that need the part
that was changed. Unchanged they must tell vLLM's story, changed they must not.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.engines.offered import columns, slos_of
from serving.engines.served import Served
from tests.serving.engines.both_engines import (
    GAPS_OF_S,
    SETTINGS,
    Case,
    Story,
    by_vllm,
    difference,
    drawn,
    machine,
    prioritised,
    steps_of,
    that_fit,
)

ENGINES = Path(__file__).resolve().parents[3] / "serving" / "engines"
SOURCES = ("gaps", "kv_blocks", "step_state", "virtual_steps")
MOST_STEPS = 4000

PLANTED = {
    "a lost block": ("kv.pool[0].free += held", "kv.pool[0].free += max(held - 1, 1)"),
    "eviction in the wrong order": ("range(cached - 1, -1, -1)", "range(cached)"),
    "a freed block without content is kept as if it had one": (
        "first = blocks[0].next\n        block.next = first\n        block.previous = 0\n"
        "        blocks[first].previous = number\n        blocks[0].next = number",
        "last = blocks[0].previous\n        block.previous = last\n        block.next = 0\n"
        "        blocks[last].next = number\n        blocks[0].previous = number",
    ),
    "the newest copy serves": (
        "block.previous_copy = last", "block.previous_copy = last\n            "
        "kv.holders[content] = number",
    ),
    "the last token comes from the cache": ("(one.known - 1) // size", "one.known // size"),
    "a wrong tie on admission": (
        "drop_first(state)\n\n\n@compiled_in_place\ndef _count",
        "drop_first(state)\n        _turn(state)\n\n\n"
        "def _turn(state):\n    engine = state.engine[0]\n    if engine.waiting > 1:\n"
        "        row, mask = first_waiting(state), len(state.waiting) - 1\n"
        "        k = (engine.waiting_first + 1) & mask\n"
        "        if state.arrivals[row] == state.arrivals[state.waiting[k]]:\n"
        "            state.waiting[engine.waiting_first] = state.waiting[k]\n"
        "            state.waiting[k] = row\n\n\n@compiled_in_place\ndef _count",
    ),
    "a preempted request goes to the end of the queue": (
        "put_first(state, preempt_last(state))", "put_last(state, preempt_last(state))",
    ),
    "admission in a step that preempted": ("if engine.preempted == 0:", "if True:"),
    "an arrival one step late": ("<= engine.now_s:", "< engine.now_s:"),
    "one token too many": ("if one.known >= one.end", "if one.known > one.end"),
    "a part of the prompt is enough to be admitted": (
        "(one.known + size - 1) // size - found + idle > pool.free",
        "1 + idle > pool.free or (min(one.known - found * size, engine.chunk, "
        "engine.budget_left) + size - 1) // size + idle > pool.free",
    ),
    "one alone is held to the threshold": ("inside > 1", "inside > 0"),
    "a preempted request's tokens of this step take time": (
        "_count(engine, state.progress[row].prompt, computed, tokens, -1)",
        "engine.scheduled -= 1",
    ),
    "the last of the list is preempted whatever its priority": (
        "if goes_before(state, running[place], running[i]):", "if True:",
    ),
    "those behind one that was preempted for its own tokens go on": (
        "if not _preempt_least(state):\n                return",
        "if not _preempt_least(state):\n                break",
    ),
    "the gap of one that sat out is the step's": ("row, now_s - one.last_s)", "row, gap_s)"),
    "a gap as long as allowed, or shorter, is late": (
        "gaps.late[row] += gap_s > gaps.itl_s[row]\n                elif",
        "gaps.late[row] += 1\n                elif",
    ),
    "gaps of the warm-up are counted": (
        "alike += watched.first <= row < watched.beyond", "alike += row < watched.beyond",
    ),
    "gaps of the tail are counted": (
        "alike += watched.first <= row < watched.beyond", "alike += watched.first <= row",
    ),
    "a preempted request goes to the front whatever its priority": (
        "put_in_order(state, row)\n    return other", "put_first(state, row)\n    return other",
    ),
}  # fmt: skip


@cache
def cases() -> list[Case]:
    tight = machine(60, 8, 200)
    shared = machine(130, 8, 700, prefix_caching=True)
    return [
        Case(tight, that_fit(drawn(1, 60, 30.0, 250, 40), tight)),
        Case(tight, that_fit(drawn(2, 30, 1.5, 250, 40), tight), threshold=64),
        Case(shared, that_fit(drawn(3, 60, 20.0, 500, 30, topics=2), shared)),
        Case(shared, that_fit(drawn(4, 60, 60.0, 900, 60, topics=1), shared)),
        Case(tight, prioritised(that_fit(drawn(5, 60, 30.0, 250, 40), tight), 5), by_priority=True),
    ]  # fmt: skip


@cache
def expected() -> list[Story]:
    return [by_vllm(case) for case in cases()]


def sources(old: str = "", new: str = "") -> dict[str, Any]:
    """What the loop's files define, uncompiled, with `old` replaced wherever it stands."""
    texts = [(ENGINES / f"{name}.py").read_text() for name in SOURCES]
    assert not old or any(old in text for text in texts), "the source has changed: plant anew"
    found: dict[str, Any] = {"__name__": "planted", "compiled_in_place": lambda function: function}
    own = rf"from serving\.(core\.jit|engines\.({'|'.join(SOURCES)})) import (\([^)]*\)|.*)"
    for text in texts:
        changed = text.replace(old, new) if old else text
        exec(compile(re.sub(own, "", changed), "planted", "exec"), found)
    return found


def story(case: Case, loop: dict[str, Any]) -> Story:
    """As the compiled engine tells it, but by these functions."""
    profile = case.profile
    workload = columns(case.requests, profile)
    state = loop["new_state"](profile, workload, 100_000)
    state.engine["long_prefill_threshold"] = case.threshold
    state.engine["by_priority"] = case.by_priority
    kv = state.kv._replace(
        pool=state.kv.pool.view(np.recarray), blocks=state.kv.blocks.view(np.recarray),
        contents=state.kv.contents._replace(names=state.kv.contents.names.view(np.recarray)),
    )  # fmt: skip
    slos = slos_of(workload.senders, SETTINGS)
    loop["promise"](state.gaps, slos, workload.sender)
    loop["count_gaps"](state.gaps, workload, GAPS_OF_S)
    gaps = state.gaps._replace(watched=state.gaps.watched.view(np.recarray))
    readable = state._replace(
        kv=kv, gaps=gaps, engine=state.engine.view(np.recarray),
        progress=state.progress.view(np.recarray), log=state.log.view(np.recarray),
    )  # fmt: skip
    loop["run_stock"](readable, np.inf, np.inf, MOST_STEPS)
    steps = steps_of(state.log[: state.engine["logged"][0]], 0)
    outcomes = Served.of(state, workload).outcomes(case.requests, SETTINGS)
    recomputed, counts = int(state.engine["recomputed_tokens"][0]), gaps.histogram.tolist()
    return Story(steps, outcomes, recomputed, [], counts)


def differences(loop: dict[str, Any]) -> list[str]:
    """Of each case, in what it differs from vLLM; an error in the loop is a difference."""
    found = []
    for case, known in zip(cases(), expected(), strict=True):
        try:
            found.append(difference(known, story(case, loop)))
        except IndexError as error:
            found.append(f"IndexError: {error}")
    return found


def test_the_unchanged_loop_tells_vllms_story_without_the_compiler_too():
    assert differences(sources()) == [""] * len(cases())
    assert sum(known.preemptions for known in expected()) > 20
    assert sum(one.late_gaps > 0 for known in expected() for one in known.outcomes) > 20
    assert {one.miss for known in expected() for one in known.outcomes} >= {"", "itl"}
    assert sum(one.cached_tokens for known in expected() for one in known.outcomes) > 5000


@pytest.mark.parametrize("error", PLANTED)
def test_a_planted_error_is_found(error):
    assert any(differences(sources(*PLANTED[error])))

"""What does a reported step change in the batch's figures?"""

import math

import numpy as np
import pytest

from serving.contracts import CostCoefficients
from serving.core import batch
from serving.core.state import Core
from tests.serving.core.samples import Running, batch_of

COST = CostCoefficients(0.01, 1e-4, 1e-4)
PROMPT = 10


def core_with(count: int, *, drafts: int = 0) -> Core:
    """So many that were admitted a moment ago, each with a prompt of ten tokens."""
    core = batch_of([Running()] * count, COST, drafts=drafts)
    core.requests["active"][:count], core.engine["running"] = 0, 0
    core.requests["whole_prompt_tokens"][:count] = PROMPT
    core.requests["max_tokens"][:count] = 100
    for row in range(count):
        core.requests["histogram"][row] = row
        batch.admit(core, row, 20.0)
    return core


def test_the_running_list_follows_what_happens():
    core = core_with(5)
    batch.remove(core, 1)
    batch.remove(core, 4)
    batch.remove(core, 4)  # it runs no more: nothing happens
    batch.leave(core, 0)
    batch.admit(core, 4, 20.0)
    assert core.running[: core.engine["running"][0]].tolist() == [2, 3, 4]


def report(core: Core, now_s: float, tokens: list[int]) -> list[tuple[int, float]]:
    """The requests have got so many tokens by now; the inter-token gaps."""
    count = len(tokens)
    core.requests["output_tokens"][:count] = tokens
    groups, gaps_s = np.empty(count, np.int64), np.empty(count)
    found = batch.note_tokens(core, count, now_s, groups, gaps_s)
    return list(zip(groups[:found].tolist(), gaps_s[:found].tolist(), strict=True))


def test_a_first_token_begins_to_decode_and_later_ones_have_gaps():
    core = core_with(2)
    assert report(core, 5.0, [1, 0]) == []
    assert report(core, 5.5, [3, 1]) == [(0, 0.5)], "several tokens of one step have one gap"
    assert report(core, 7.5, [3, 2]) == [(1, 2.0)]
    lane = core.tenants[0]
    assert (lane["running"], lane["decoding"], lane["silent"]) == (2, 2, 1)
    assert core.requests["first_token_s"][:2].tolist() == [5.0, 5.5]
    assert lane["work"] == 2.0 * (1 + 2 + 1), "two per decode and step, of those that got a token"


def test_gaps_longer_than_a_requests_own_target_are_late():
    core = core_with(3)
    core.requests["itl_s"][:3] = 0.5, 2.0, np.inf
    core.engine["least_itl_s"] = 0.5
    for now_s in (1.0, 1.5, 3.0, 6.0):
        report(core, now_s, [int(2 * now_s)] * 3)
    assert core.requests["late_gaps"][:3].tolist() == [2, 1, 0], "of 0.5, 1.5 and 3 s"


def test_who_leaves_or_is_preempted_takes_its_counts_along():
    core = core_with(3)
    core.tenants["inside"] = 3
    report(core, 5.0, [1, 1, 0])
    batch.remove(core, 0)
    batch.leave(core, 2)
    batch.remove(core, 2)
    lane = core.tenants[0]
    assert (lane["running"], lane["decoding"], lane["inside"]) == (1, 1, 2)
    batch.admit(core, 0, 50.0)
    assert core.requests["start_tokens"][0] == PROMPT + 1
    assert core.requests["expected_tokens"][0] == 20.0, "predicted at its first admission"
    assert report(core, 9.0, [2, 1, 0]) == [(0, 4.0)], "it lasted until it was back"


@pytest.mark.parametrize("prefilling", [0, 1])
def test_one_whose_admission_was_not_noted_changes_no_counts(prefilling):
    core = core_with(1)
    batch.remove(core, 0)
    core.requests["prefilling"][0] = prefilling
    core.requests["last_token_s"][0] = 1.0
    assert report(core, 5.0, [1]) == []
    lane = core.tenants[0]
    assert (lane["running"], lane["decoding"], lane["silent"], lane["work"]) == (0, 0, 0, 0.0)


def test_the_shape_of_a_step_by_hand():
    """A prompt of ten in chunks of six and four beside a decode, then two decodes."""
    core = core_with(2)
    core.requests["computed_tokens"][:2] = PROMPT, 0
    report(core, 1.0, [1, 0])
    shapes = []
    for tokens in ([1, 6], [1, 4], [1, 1]):
        rows = np.arange(2)
        shapes.append(batch.note_scheduled(core, rows, np.array(tokens), False))
        if len(shapes) == 2:
            report(core, 2.0, [3, 1])
    assert [tuple(map(int, shape)) for shape in shapes] == [
        (6, 1, 11, 0, 1), (4, 1, 12, 4 * 6, 0), (0, 2, 13 + 11, 0, 0),
    ]  # fmt: skip


def test_tokens_per_decode_follow_what_drafts_bring_and_not_those_who_wait():
    core = core_with(2, drafts=3)
    report(core, 1.0, [1, 0])
    for step in range(1, 40):
        report(core, 1.0 + step, [1 + 3 * step, 0])
    assert core.engine["tokens_per_decode"][0] == pytest.approx(3.0)
    assert core.requests["tokens_per_step"][:2].tolist() == [pytest.approx(3.0, abs=0.05), 1.0]


def test_a_share_of_a_pipelines_decodes_is_in_each_step():
    core = core_with(4)
    core.requests["computed_tokens"][:4] = PROMPT
    report(core, 1.0, [1] * 4)
    for step in range(200):
        rows = np.array([0, 1] if step % 2 else [2, 3])
        batch.note_scheduled(core, rows, np.ones(2, np.int64), True)
    assert core.engine["turns"][0] == pytest.approx(0.5, abs=0.01)


def test_the_deadline_is_that_of_the_first_token_or_what_the_end_leaves_for_it():
    """Of 30 s to the end, 20 tokens of 0.1 s come after the first one."""
    core = core_with(1)
    core.engine["last_step_s"] = 0.1
    for ttft_s, e2e_s, deadline_s in ((2.0, math.inf, 102.0), (math.inf, 30.0, 128.0),
                                      (2.0, 30.0, 102.0), (math.inf, 1.0, 100.0),
                                      (math.inf, math.inf, math.inf)):  # fmt: skip
        one = core.requests[:1]
        one["arrival_s"], one["ttft_s"], one["e2e_s"] = 100.0, ttft_s, e2e_s
        batch.arrive(core, 0, 20.0, 40.0)
        assert one["deadline_s"][0] == pytest.approx(deadline_s)

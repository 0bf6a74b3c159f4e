"""The batching agent's second half: decodes in turns where a tight TPOT is worth short steps."""

from dataclasses import replace

import pytest

from hmas_agents.agents import batching
from serving.contracts import Limits
from tests.agents.short_states import asked
from tests.agents.states import short_state

FOLLOWING = Limits(256, 2048, follow_slack=True)
PACED = replace(FOLLOWING, pace_decodes=True)
# 0.95 * 30 ms is 22.8 ms and a quarter of it for prefill: (22.8 - 7.75) / 0.2, 75 decodes fit.
CROWDED = short_state(
    waiting=9, running=120, decoding=119, prefilling=1, limits=FOLLOWING, max_active_requests=256,
    step_base_s=0.00775, decode_s=0.0002, tpot_targets=((0.03, 0.4), (0.1, 0.4)),
    requests_by_tenant={"a": 20},
)  # fmt: skip


def calls(**differs) -> list[float]:
    found = batching.decode_pacing(replace(CROWDED, **differs))
    assert all(call["name"] == "set_decode_pacing" for call in found)
    return [asked(call) for call in found]


def test_in_turns_where_more_run_than_fit_a_step_at_the_pace_worth_most():
    assert calls() == [True]
    assert calls(running=61) == [True]
    assert calls(running=60) == [], "nobody would sit out"
    assert calls(limits=PACED) == [], "so it is"
    assert calls(ranks=4) == [], "30 run in each"


NOBODY_TO_PACE = [
    ({"tpot_targets": ((0.001, 0.2), (0.2, 0.8))}, "no step is short enough for 1 ms"),
    ({"tpot_targets": ((0.03, 0.05), (0.2, 0.95))}, "few have the tight one"),
    ({"tpot_targets": ((0.2, 1.0),)}, "as many as there may be keep 200 ms"),
    ({"tpot_targets": ()}, "nobody was promised a pace"),
    ({"requests_by_tenant": {"a": 19}}, "too few came to know what is promised"),
    ({"decode_s": 0.0}, "what a decode costs is unknown"),
]


@pytest.mark.parametrize(("differs", "why"), NOBODY_TO_PACE)
def test_all_decode_where_short_steps_are_not_worth_it(differs, why):
    assert calls(**differs) == [], why
    assert calls(limits=PACED, **differs) == [False], why


def test_without_steps_sized_by_slack_there_is_nothing_to_keep():
    assert calls(limits=Limits(256, 2048)) == []
    assert calls(limits=Limits(256, 2048, pace_decodes=True)) == [False]


def test_it_ends_when_few_run():
    assert calls(limits=PACED, running=38) == []
    assert calls(limits=PACED, running=37) == [False]


def test_a_target_that_is_kept_is_given_up_only_for_a_fifth_more():
    all_at_once = 256 / (0.00775 + 256 * 0.0002)
    kept = 75 / (0.00775 + 75 * 0.0002)
    for more, ends in ((1.19, []), (1.21, [False])):
        share = 1 - more * kept / all_at_once
        assert calls(limits=PACED, tpot_targets=((0.03, share),)) == ends

"""A stretch of a run is cut so that it can be served again."""

from dataclasses import replace

import pytest

from hmas_agents.explain import stretch as stretches
from hmas_agents.explain.stretch import TAIL_S, cut_stretch, inside_at
from serving.contracts import SLO
from tests.hmas_agents.samples import INTERACTIVE, outcome

# Waits from 100 to 104, prefills until 106, then nine tokens in 8 s; ends at 114.
IT = outcome(
    1, 100.0, 14.0, queue_s=4.0, ttft_s=6.0, tpot_s=1.0, output_tokens=9, prompt_tokens=400
)


@pytest.mark.parametrize(
    ("at_s", "running", "computed", "tokens"),
    [
        (102.0, False, 0, 0),
        (105.0, True, 200, 0),
        (106.5, True, 400, 1),
        (109.2, True, 403, 4),
        (113.9, True, 407, 8),
    ],
)
def test_where_a_request_was_is_worked_out_from_its_outcome(at_s, running, computed, tokens):
    found = inside_at(IT, at_s, 9, 50)
    assert found is not None
    inside, total = found
    assert (inside.running, inside.computed_tokens, inside.output_tokens) == (
        running, computed, tokens,
    )  # fmt: skip
    assert inside.arrival_s == pytest.approx(100.0 - at_s)
    assert inside.max_tokens == 50
    assert total == 9


def test_one_that_had_nothing_left_to_do_is_left_out():
    assert inside_at(replace(IT, output_tokens=1), 113.0, 1, 50) is None


def test_the_stretch_holds_who_was_inside_and_who_came():
    before = outcome(2, 70.0, 15.0, request_id="before")  # gone by the start
    inside = outcome(3, 85.0, 30.0, request_id="inside", queue_s=1.0, ttft_s=2.0, tpot_s=0.3)
    waiting = outcome(4, 88.0, 30.0, request_id="waiting", queue_s=20.0)
    lead = outcome(5, 95.0, 4.0, request_id="lead", tenant="globex")
    tail = outcome(6, 114.0 + TAIL_S, 1.0, request_id="tail")
    late = outcome(7, 115.0 + TAIL_S, 1.0, request_id="late")
    refused = outcome(8, 101.0, 0.0, request_id="refused", finish="rejected")
    cut = cut_stretch(IT, [before, inside, waiting, lead, IT, refused, tail, late], 10.0)
    assert cut.start_s == 90.0
    assert [one.request_id for one, _ in cut.begun] == ["inside", "waiting"]
    assert [o.request_id for o in cut.real] == ["lead", IT.request_id, "tail"]
    assert [r.arrival_s for r in cut.offered] == pytest.approx([5.0, 10.0, 24.0 + TAIL_S])
    assert cut.real[cut.index] is IT
    assert cut.judged_until_s == IT.finished_s
    assert [tokens for _, _, _, tokens in cut.served] == [before.output_tokens]


def test_each_request_keeps_its_targets_even_where_one_class_has_two():
    strict = replace(IT, seq=2, request_id="strict", slo=SLO(ttft_ms=100))
    cut = cut_stretch(IT, [IT, strict], 10.0)
    targets = {
        real.request_id: offered.slo
        for real, offered in zip(cut.real, cut.offered, strict=True)
    }
    assert targets == {IT.request_id: INTERACTIVE, "strict": SLO(ttft_ms=100)}


def test_an_aborted_answer_is_replayed_with_its_tenants_mean_and_the_reader_is_told():
    cut_off = replace(IT, seq=2, request_id="cut off", finish="aborted", output_tokens=2)
    long = replace(IT, seq=3, request_id="long", output_tokens=21)
    cut = cut_stretch(IT, [IT, cut_off, long], 10.0)
    assert [r.output_tokens for r in cut.offered] == [9, 15, 21]
    assert any("1 of 3 requests were aborted" in note for note in cut.notes)


def test_of_several_ranks_every_nth_request_is_kept_and_the_explained_one_with_them():
    around = [replace(IT, seq=i, request_id=f"r{i}", arrival_s=100.0 + i) for i in range(9)]
    for number in (3, 4):
        cut = cut_stretch(around[number], around, 10.0, ranks=2)
        assert [o.seq for o in cut.real] == list(range(number % 2, 9, 2))
        assert cut.real[cut.index] is around[number]


def test_too_many_requests_cost_the_lead_first(monkeypatch):
    monkeypatch.setattr(stretches, "MAX_REPLAYED", 5)
    around = [replace(IT, seq=i, request_id=f"r{i}", arrival_s=90.0 + i) for i in range(30)]
    it = replace(around[10], finished_s=102.5)
    around[10] = it
    cut = cut_stretch(it, around, 10.0)
    assert [o.seq for o in cut.real] == [8, 9, 10, 11, 12]
    assert cut.start_s == 98.0
    assert any("only 5 of the" in note for note in cut.notes)
    everything_after = replace(it, finished_s=130.0)
    around[10] = everything_after
    cut = cut_stretch(everything_after, around, 10.0)
    assert cut.real[cut.index] is everything_after
    assert len(cut.real) == 5

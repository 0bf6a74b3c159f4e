"""Is goodput counted over everything offered, and are results printed alike every time?"""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.result.metrics import (
    NOT_SERVED,
    CaseRun,
    jain_index,
    percentiles,
    summarise,
    windowed_attainment,
)
from evals.result.recording import AppliedDecision, count_switches
from evals.result.run_result import SuiteRun, to_json
from serving.contracts import Contract, Limits
from serving.contracts.contract import ClassTerms, TenantTerms
from tests.evals.samples import outcome

LIMITS = Limits(8, 512)


def case(*outcomes, decisions=()):
    return CaseRun("s", 1.5, "hmas", outcomes, decisions)


def test_every_offered_request_counts():
    run = case(
        outcome(0, met=True),
        outcome(1, met=False, tenant="b"),
        outcome(2, met=False, finish="unfinished", ttft_s=None, tpot_s=None, tenant="b"),
        outcome(3, met=True, tenant="b", slo_class="document"),
    )
    result = summarise(run, span_s=4.0)
    assert result["requests"] == 4
    assert result["goodput_rps"] == 0.5
    assert result["offered_rps"] == 1.0
    assert result["attainment"] == 0.5
    assert result["attainment_by_tenant"] == {"a": 1.0, "b": pytest.approx(1 / 3)}
    assert result["attainment_by_class"] == {"document": 1.0, "interactive": pytest.approx(1 / 3)}
    assert result["worst_tenant"] == "b"
    assert result["not_served"] == 1
    assert result["ttft_s"] == {"p50": 0.1, "p90": 0.1, "p99": 0.1, "none": 1}


def test_goodput_is_of_what_ended_inside_the_span_and_attainment_of_what_arrived():
    run = case(
        outcome(0, arrival_s=0, finished_s=15),  # arrived while nothing counted
        outcome(1, arrival_s=12, finished_s=14),
        outcome(2, arrival_s=13, finished_s=19, met=False),
        outcome(3, arrival_s=18, finished_s=25),  # met, but after what counts
        outcome(4, arrival_s=20, finished_s=21),
    )
    result = summarise(run, span_s=20.0, warmup_s=10.0)
    assert result["goodput_rps"] == 0.2
    assert result["goodput_tokens_per_s"] == 22.0  # two requests of 110 tokens
    assert (result["requests"], result["attainment"]) == (4, 0.75)
    later = summarise(run, span_s=20.0, warmup_s=12.0, start_s=-2.0)
    assert (later["requests"], later["goodput_rps"]) == (3, 2 / 8)
    assert later["uncounted_requests"] == 2


def contract(**weights):
    return Contract(tenants={name: TenantTerms(weight=weight) for name, weight in weights.items()})


def test_tenants_count_by_their_weight():
    run = case(outcome(0, arrival_s=0), outcome(1, met=False, tenant="b"),
               outcome(2, arrival_s=2, tenant="b"), outcome(3, arrival_s=3, met=False))  # fmt: skip
    result = summarise(run, span_s=4.0, contract=contract(a=3.0, b=1.0))
    assert result["attainment"] == 0.5
    assert result["attainment_weighted"] == 0.5
    only_a = case(outcome(0), outcome(1, met=False, tenant="b"))
    result = summarise(only_a, span_s=4.0, contract=contract(a=3.0, b=1.0))
    assert result["attainment_weighted"] == 0.75
    assert result["goodput_weighted_rps"] == 0.25 * 3 / 2


def test_classes_count_by_theirs_times_the_tenants():
    run = case(outcome(0), outcome(1, met=False, slo_class="document"),
               outcome(2, tenant="b", slo_class="document"))  # fmt: skip
    terms = contract(a=2.0).model_copy(update={"classes": {"document": ClassTerms(weight=0.5)}})
    result = summarise(run, span_s=3.0, contract=terms)
    assert result["attainment_weighted"] == (2.0 + 0.5) / 3.5
    assert result["goodput_weighted_rps"] == pytest.approx(2.5 / (3.5 / 3) / 3.0)


def test_what_is_wanted_from_a_moment_on_weighs_what_is_due_from_then_on():
    run = case(outcome(0), outcome(1, arrival_s=2), outcome(2, arrival_s=3, met=False))
    wanted = ((2.5, contract(a=3.0)), (3.4, contract(a=4.0)))  # each is due half a second later
    result = summarise(run, span_s=4.0, contract=contract(a=1.0), wanted=wanted)
    assert result["attainment_weighted"] == pytest.approx((1 + 3) / (1 + 3 + 4))
    assert "attainment_by_words" not in result


def test_tenants_and_classes_that_words_named_are_counted_apart():
    run = case(outcome(0), outcome(1, met=False, tenant="b", slo_class="batch"),
               outcome(2, tenant="b"), outcome(3, tenant="c", met=False))  # fmt: skip
    shares = [
        summarise(run, span_s=4.0, named=named)["attainment_by_words"]
        for named in ([("a", None)], [("a", None), (None, "batch")], [("b", "batch")])
    ]
    third = pytest.approx(1 / 3)
    assert shares == [
        {"named": 1.0, "others": third}, {"named": 0.5, "others": 0.5},
        {"named": 0.0, "others": pytest.approx(2 / 3)},
    ]  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=20),
       st.floats(0.1, 10))  # fmt: skip
def test_equal_weights_are_no_weights(requests, weight):
    run = case(*(outcome(i, tenant=t, met=met) for i, (t, met) in enumerate(requests)))
    for terms in (None, contract(a=weight, b=weight, c=weight)):
        result = summarise(run, span_s=4.0, contract=terms)
        assert result["goodput_weighted_rps"] == pytest.approx(result["goodput_rps"])
        assert result["attainment_weighted"] == pytest.approx(result["attainment"])


def test_the_public_keys_are_those_of_the_format():
    result = summarise(case(outcome()), span_s=1.0)
    assert {
        "scenario", "load", "arm", "requests", "goodput_rps", "attainment",
        "attainment_by_class", "attainment_by_tenant", "ttft_s", "tpot_s",
    } <= set(result)  # fmt: skip
    assert set(result["ttft_s"]) == set(result["tpot_s"]) == {"p50", "p90", "p99", "none"}


@pytest.mark.parametrize("finish", NOT_SERVED)
def test_what_was_not_served_is_no_goodput(finish):
    result = summarise(case(outcome(met=False, finish=finish)), span_s=1.0)
    assert (result["goodput_rps"], result["not_served"]) == (0.0, 1)


def test_a_run_without_requests_or_span_has_no_result():
    with pytest.raises(ValueError, match="no goodput"):
        summarise(case(), span_s=1.0)
    with pytest.raises(ValueError, match="no goodput"):
        summarise(case(outcome()), span_s=0.0)


def test_percentiles_interpolate_and_say_how_many_lack_a_value():
    seen = pd.Series([*range(101), None], dtype=float)
    assert percentiles(seen) == {"p50": 50, "p90": 90, "p99": 99, "none": 1}
    none = pd.Series([None, None], dtype=float)
    assert percentiles(none) == {"p50": None, "p90": None, "p99": None, "none": 2}


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20))
def test_jain_lies_between_one_over_n_and_one(values):
    index = jain_index(values)
    assert index is not None
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9


def test_jain_of_nobody_served_is_undefined():
    assert jain_index([0.0, 0.0]) is None
    assert jain_index([1.0, 0.0]) == 0.5


def test_windows_are_by_arrival():
    outcomes = [outcome(i, arrival_s=100 + s, met=s < 30) for i, s in enumerate((0, 29, 30, 95))]
    assert windowed_attainment(outcomes, 100.0) == [(15.0, 1.0), (45.0, 0.0), (105.0, 0.0)]


def test_the_first_policy_is_no_switch():
    names = ("slide", "slide", "edf", "slide")
    decisions = [AppliedDecision(i, name, LIMITS, "") for i, name in enumerate(names)]
    assert count_switches(decisions) == 2
    assert summarise(case(outcome(), decisions=decisions), 1.0)["switches"] == 2
    assert count_switches([]) == 0


def test_json_is_sorted_rounded_and_free_of_nan():
    run = SuiteRun("s", 3, {"vllm": "1"}, [{"b": 1 / 3, "a": [0.1 + 0.2]}], [])
    assert json.loads(to_json(run)) == {
        "suite": "s",
        "seed": 3,
        "versions": {"vllm": "1"},
        "results": [{"a": [0.3], "b": 0.333333}],
    }
    assert to_json(run).index('"a"') < to_json(run).index('"b"')
    with pytest.raises(ValueError, match="JSON"):
        to_json(SuiteRun("s", 3, {}, [{"x": float("nan")}], []))

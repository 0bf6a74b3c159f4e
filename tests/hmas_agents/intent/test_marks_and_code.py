"""Do marks stand for what a text says, and does a code say the changes that were meant?"""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmas_agents.intent.change import MAX_CHANGES, ChangeError, Names, read_answer
from hmas_agents.intent.code import changes_of, pattern
from hmas_agents.intent.marks import mark
from tests.hmas_agents.intent.test_grammar import WORDS

NAMES = Names(tenants=("acme", "globex", "blue-bank"), slo_classes=("interactive", "batch"))
VALUES: dict[str, str | float] = {
    "T1": "acme", "C1": "batch", "X1": 4.0, "S1": 0.3, "A1": "14:00", "A2": "18:00", "D1": 20.0,
}  # fmt: skip


def test_names_and_numbers_are_counted_as_they_appear_and_the_same_is_the_same_mark():
    marked = mark(
        "Globex launches at 2 pm:\n reckon with 3 times the batch of GLOBEX, "
        "acme may be 30 percent slower until 18:00, for 20 minutes batch rests till 14:00",
        NAMES,
    )
    assert marked.text == (
        "T1 launches at A1: reckon with X1 the C1 of T1, "
        "T2 may be S1 slower until A2, for D1 C1 rests till A1"
    )
    assert marked.values == {
        "T1": "globex", "A1": "14:00", "X1": 3.0, "C1": "batch", "T2": "acme", "S1": 0.3,
        "A2": "18:00", "D1": 20.0,
    }  # fmt: skip
    assert list(marked.values)[:3] == ["T1", "A1", "X1"]


def test_the_sign_of_a_percentage_stays_in_the_text_where_the_model_sees_it():
    marked = mark("acme's targets -20 percent", NAMES)
    assert (marked.text, marked.values["S1"]) == ("T1 targets -S1", 0.2)


def test_nobody_can_type_a_mark():
    assert mark("T1 C1 A1 D1 S1 weight", NAMES).values == {}


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_whatever_is_typed_each_mark_in_the_text_has_a_value_and_each_value_a_mark(text):
    marked = mark(text, NAMES)
    assert "\n" not in marked.text
    seen = dict.fromkeys(re.findall(r"(?<![A-Z])[TCADSX]\d+", marked.text))
    assert list(seen) == list(marked.values)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("ask", []),
        ("expect T1 X1 from A1",
         [{"kind": "expect", "tenant": "acme", "factor": 4.0, "from": "14:00"}]),
        ("weight T1 C1 high for D1; shed C1 1-S1 until A2",
         [{"kind": "weight", "tenant": "acme", "slo_class": "batch", "factor": 3.0, "for_min": 20},
          {"kind": "shed", "slo_class": "batch", "share": 0.7, "until": "18:00"}]),
        ("slo_scale 1/X1 from +D1 until A2",
         [{"kind": "slo_scale", "factor": 0.25, "from": "12:20", "until": "18:00"}]),
        ("expect C1 1+S1", [{"kind": "expect", "slo_class": "batch", "factor": 1.3}]),
    ],
)  # fmt: skip
def test_a_code_says_changes_and_is_one_of_those_that_may_be_written(code, changes):
    assert changes_of(code, VALUES, "12:00") == changes
    assert re.fullmatch(pattern(VALUES), code)
    if changes:
        read_answer(changes, NAMES, "12:00")


@pytest.mark.parametrize(
    "code",
    ["", "weight", "weight T2 high", "weight T1 7", "weight T1 X2", "shed T1 2-S1",
     "expect T1 X1 from", "weight T1 high until D1", "weight T1 high; ",
     "weight T1 high;weight C1 high", "ask; ask", "Ask",
     "weight T1 high until A3", "weight T1 high from D1"],
)  # fmt: skip
def test_what_is_no_code_can_neither_be_read_nor_written(code):
    assert not re.fullmatch(pattern(VALUES), code)
    with pytest.raises(ChangeError):
        changes_of(code, VALUES, "12:00")


def test_without_marks_only_defaults_are_left_and_a_text_has_no_end_of_changes():
    assert re.fullmatch(pattern([]), "weight usual; expect none")
    assert not re.fullmatch(pattern([]), "weight T1 high")
    assert re.fullmatch(pattern([]), "; ".join(["shed none"] * MAX_CHANGES))
    assert not re.fullmatch(pattern([]), "; ".join(["shed none"] * (MAX_CHANGES + 1)))

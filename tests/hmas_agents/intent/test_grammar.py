"""Does the grammar read the plain things, ask about the others, and survive everything?"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmas_agents.intent.change import Names, read_answer
from hmas_agents.intent.grammar import Grammar

NAMES = Names(tenants=("acme", "globex", "blue-bank"), slo_classes=("interactive", "batch"))
WORDS = [
    "acme", "globex", "acem", "batch", "first", "protect", "shed", "30", "percent", "3", "times",
    "until", "6 pm", "18:00", "for", "20", "minutes", "expect", "traffic", "floor", "latency",
    "and", ",", ";", ".", "no", "not", "stop", "wait", "99", "0", "-1", "1e400", "T0", "C1", "<x",
    "<x nan>", "<at 99:99>", "|", "(", "9" * 400, "at 99h99",
]  # fmt: skip


def reply(text, now="13:00"):
    return Grammar().read(text, now, NAMES).reply


def test_several_changes_of_one_text_are_read():
    text = "acme launches at 14:00, expect 3 times their traffic; batch can wait until 6 pm"
    assert read_answer(reply(text), NAMES, "13:00") == read_answer(
        [{"kind": "expect", "tenant": "acme", "factor": 3, "from": "14:00"},
         {"kind": "weight", "slo_class": "batch", "factor": 0.3, "until": "18:00"}],
        NAMES, "13:00",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fields"),
    [("protect acme", {"kind": "weight", "factor": 3}),
     ("acme is not urgent", {"kind": "weight", "factor": 0.3}),
     ("stop protecting acme", {"kind": "weight", "factor": 1}),
     ("reject acme", {"kind": "shed", "share": 1}),
     ("stop rejecting acme", {"kind": "shed", "share": 0}),
     ("acme keeps 20 percent", {"kind": "floor", "share": 0.2}),
     ("acme's latency targets plus 50 percent", {"kind": "slo_scale", "factor": 1.5}),
     ("in 30 minutes expect 2 times acme, for 10 minutes",
      {"kind": "expect", "factor": 2, "from": "13:30", "for_min": 10})],
)  # fmt: skip
def test_each_kind_its_default_and_its_end_are_read(text, fields):
    assert read_answer(reply(text), NAMES, "13:00") == read_answer(
        [fields | {"tenant": "acme"}], NAMES, "13:00"
    )


@pytest.mark.parametrize(
    "text",
    ["", "hello", "acme", "umbrella first", "expect more from acme", "acme floor 95 percent",
     "should acme go first?", "acme first until lunch", "acme or globex first"],
)  # fmt: skip
def test_what_is_unclear_impossible_or_no_request_is_asked_back(text):
    assert list(reply(text)) == ["question"]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_whatever_is_typed_the_reply_fits_the_contract(text):
    read_answer(reply(text), NAMES, "13:00")


def test_a_megabyte_is_asked_back_about_not_read_in_part():
    assert list(reply("protect acme. " + "and so on " * 100_000)) == ["question"]

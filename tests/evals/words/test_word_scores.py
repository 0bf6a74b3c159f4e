"""Do the scores say how often a text was read exactly, asked back about, or read wrongly?"""

import json

import pytest

from evals.words.word_cases import read_word_cases
from evals.words.word_scores import outcomes, score
from hmas_agents.intent.change import ChangeError
from hmas_agents.intent.reading import Reading

NAMES = {"tenants": ["acme", "globex"], "slo_classes": ["batch"]}
FIRST = {"kind": "weight", "tenant": "acme", "factor": 3, "until": "18:00"}
WAIT = {"kind": "weight", "slo_class": "batch", "factor": 0.3}
ASKED = {"question": "Who?"}
EXPECTED = {"one": [FIRST], "two": [FIRST, WAIT], "unclear": {"question": True}}


class Scripted:
    """Says for each text what it was told to, with a confidence of 0.9."""

    name = "scripted"

    def __init__(self, replies, confidence=0.9):
        self.replies, self.confidence = replies, confidence

    def read(self, text, now, names):
        return Reading(self.replies[text], self.confidence)


@pytest.fixture
def cases(tmp_path):
    path = tmp_path / "cases.jsonl"
    rows = [{"text": text, "now": "12:00", "contract": NAMES, "expected": expected}
            for text, expected in EXPECTED.items()]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return read_word_cases(path)


def scored(cases, one, two, unclear, confidence=0.9):
    reader = Scripted({"one": one, "two": two, "unclear": unclear}, confidence)
    return score("scripted", outcomes(reader, cases))


def test_what_is_right_in_any_order_is_exact(cases):
    row = scored(cases, [FIRST], [WAIT, FIRST], ASKED)
    assert (row.name, row.cases, row.exact, row.valid) == ("scripted", 3, 1, 1)
    assert (row.asked, row.wrong_confident) == (pytest.approx(1 / 3), 0)
    assert row.by_field == {
        "kind": 1, "tenant": 1, "slo_class": 1, "factor": 1, "share": None, "from": None,
        "until": 1, "for_min": None, "question": 1,
    }  # fmt: skip
    assert 0 <= row.latency_s["p50"] <= row.latency_s["p99"]


def test_asking_where_it_was_clear_is_not_exact_and_not_wrong(cases):
    row = scored(cases, ASKED, ASKED, ASKED)
    assert (row.exact, row.asked, row.wrong_confident) == (pytest.approx(1 / 3), 1, 0)
    assert row.by_field["kind"] == 0


@pytest.mark.parametrize(
    "answer", [[FIRST], [FIRST, WAIT | {"factor": 0.5}], [FIRST | {"until": None}, WAIT]]
)
def test_an_answer_that_is_a_little_off_is_wrong(cases, answer):
    row = scored(cases, [FIRST], answer, ASKED)
    assert (row.exact, row.wrong_confident) == (pytest.approx(2 / 3), pytest.approx(1 / 3))


def test_an_answer_where_a_question_was_due_is_wrong(cases):
    row = scored(cases, [FIRST], [FIRST, WAIT], [WAIT])
    assert row.wrong_confident == pytest.approx(1 / 3)
    assert row.by_field["question"] == 0


def test_what_does_not_fit_the_contract_is_not_valid_and_can_do_no_harm(cases):
    row = scored(cases, [FIRST | {"tenant": "umbrella"}], "nonsense", ASKED)
    assert (row.valid, row.exact, row.wrong_confident) == (
        pytest.approx(1 / 3), pytest.approx(1 / 3), 0,
    )  # fmt: skip


def test_below_the_confidence_it_asks(cases):
    row = scored(cases, [WAIT], [FIRST, WAIT], [WAIT], confidence=0.4)
    assert (row.asked, row.exact, row.wrong_confident) == (1, pytest.approx(1 / 3), 0)


def test_fields_are_right_or_wrong_one_by_one(cases):
    row = scored(cases, [FIRST | {"factor": 2, "from": "13:00"}], [FIRST, WAIT], ASKED)
    assert row.by_field["factor"] == 0.5
    assert row.by_field["tenant"] == row.by_field["until"] == 1
    assert row.by_field["from"] == 0  # it was given and not expected


@pytest.mark.parametrize(
    ("line", "told"),
    [("{", "cases.jsonl:1: Invalid JSON"),
     ({"now": "9:00"}, "cases.jsonl:1: now: "), ({"text": ""}, "cases.jsonl:1: text: "),
     ({"expected": {"question": False}}, "cases.jsonl:1: expected: a list of changes"),
     ({"expected": [FIRST | {"tenant": "umbrella"}]}, "expected: change 1: no tenant"),
     ({"expected": []}, "expected: "), ({"note": "x"}, "cases.jsonl:1: note: ")],
)  # fmt: skip
def test_a_broken_case_is_named_with_file_and_line(tmp_path, line, told):
    path = tmp_path / "cases.jsonl"
    good = {"text": "a", "now": "12:00", "contract": NAMES, "expected": [FIRST]}
    path.write_text(line if isinstance(line, str) else json.dumps(good | line))
    with pytest.raises(ChangeError) as broken:
        read_word_cases(path)
    assert told in str(broken.value)

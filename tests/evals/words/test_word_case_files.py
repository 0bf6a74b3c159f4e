"""Are the cases of operators' words fit to judge by? Both halves, and what keeps them apart."""

import json

import pytest

from evals.words.word_cases import read_word_cases
from hmas_agents.intent.change import Question
from tests.evals.words.said import (
    amounts,
    clocks,
    is_named,
    minutes,
    number_formats,
    phrasing,
)
from tests.source_tree import ROOT

HALVES = {half: ROOT / f"evals/cases/words_{half}.jsonl" for half in ("test", "dev")}
SHARED_FORMATS = {"9", "9.9", "9:9"}  # plain numbers and HH:MM, as H-MAS itself writes them


@pytest.fixture(scope="module")
def cases():
    return {half: read_word_cases(path) for half, path in HALVES.items()}


def known(case):
    return [*case.names.tenants, *case.names.slo_classes]


def not_said(case):
    """What the expected changes hold that neither the text nor a default says."""
    text = case.text
    found: list[tuple[str, str, object]] = []
    if isinstance(case.expected, Question):
        return found
    for change in case.expected:
        for field, is_said in (
            ("amount", change.amount in amounts(change.kind, text)),
            ("from_", change.from_ in {None, *clocks(text, case.now)}),
            ("until", change.until in {None, *clocks(text, case.now)}),
            ("for_min", change.for_min in {None, *minutes(text)}),
            ("tenant", not change.tenant or is_named(change.tenant, text, case.names.tenants)),
            ("slo_class",
             not change.slo_class or is_named(change.slo_class, text, case.names.slo_classes)),
        ):  # fmt: skip
            if not is_said:
                found.append((text, field, getattr(change, field)))
    return found


def test_there_are_enough_of_them_with_questions_and_lists(cases):
    assert len(cases["test"]) >= 300
    assert len(cases["dev"]) >= 120
    assert len({case.names for case in cases["test"]}) >= 60
    for half in cases.values():
        asked = sum(isinstance(case.expected, Question) for case in half)
        several = sum(isinstance(e := case.expected, tuple) and len(e) > 1 for case in half)
        assert 0.2 < asked / len(half) < 0.4
        assert several / len(half) > 0.1
        kinds = {each.kind for case in half if isinstance(case.expected, tuple)
                 for each in case.expected}  # fmt: skip
        assert kinds == {"weight", "floor", "slo_scale", "shed", "expect"}


@pytest.mark.parametrize("half", HALVES)
def test_every_number_and_name_that_is_expected_was_said_or_is_a_default(cases, half):
    assert [each for case in cases[half] for each in not_said(case)] == []


@pytest.mark.parametrize(
    ("text", "change", "field"),
    [("acme first", {"kind": "weight", "tenant": "acme", "factor": 4}, "amount"),
     ("acme first", {"kind": "weight", "tenant": "globex", "factor": 3}, "tenant"),
     ("acme first", {"kind": "weight", "tenant": "acme", "slo_class": "batch", "factor": 3},
      "slo_class"),
     ("acme first from 6pm", {"kind": "weight", "tenant": "acme", "factor": 3, "from": "17:00"},
      "from_"),
     ("acme first until 6pm", {"kind": "weight", "tenant": "acme", "factor": 3, "until": "19:00"},
      "until"),
     ("acme first for 20min", {"kind": "weight", "tenant": "acme", "factor": 3, "for_min": 21},
      "for_min")],
)  # fmt: skip
def test_what_was_not_said_is_found(text, change, field, tmp_path):
    path = tmp_path / "cases.jsonl"
    names = {"tenants": ["acme", "globex"], "slo_classes": ["batch", "chat"]}
    row = {"text": text, "now": "12:00", "contract": names, "expected": [change]}
    path.write_text(json.dumps(row))
    [case] = read_word_cases(path)
    assert [each[1] for each in not_said(case)] == [field]


def test_the_halves_share_no_tenant_no_phrasing_and_no_number_format(cases):
    tenants, phrasings, formats = (
        [{name for case in cases[half] for name in case.names.tenants} for half in HALVES],
        [{phrasing(case.text, known(case)) for case in cases[half]} for half in HALVES],
        [{f for case in cases[half] for f in number_formats(case.text, known(case))}
         for half in HALVES],
    )  # fmt: skip
    assert tenants[0] & tenants[1] == set()
    assert phrasings[0] & phrasings[1] == set()
    assert formats[0] & formats[1] == SHARED_FORMATS


@pytest.mark.parametrize(
    ("one", "other"),
    [("acme first until 6pm", "Globex first, until 5pm!"), ("acme x3 for two", "acme x4 for six")],
)
def test_texts_that_differ_in_names_and_numbers_only_are_one_phrasing(one, other):
    names = ["acme", "globex"]
    assert phrasing(one, names) == phrasing(other, names)
    assert phrasing(one, names) != phrasing("acme last until 6pm", names)

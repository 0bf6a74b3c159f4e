"""Are the texts that are taught rightly marked, and of neither half of the cases?"""

import re

import pytest

from evals.words.word_cases import read_word_cases
from hmas_agents.intent.change import Question
from hmas_agents.intent.code import ASK, pattern
from hmas_agents.intent.marks import mark
from hmas_agents.teach.examples import Examples
from hmas_agents.teach.phrasings import SLOT, Phrasing, PhrasingError, read_phrasings
from tests.evals.words.said import phrasing, plain
from tests.source_tree import ROOT

NUMBERS = [
    {"T": "_", "C": "_", "A": "0:0", "D": "0 minutes", "S": "0 percent", "X": "0 times"},
    {"T": "_", "C": "_", "A": "0 pm", "D": "0min", "S": "0%", "X": "0x"},
    {"T": "_", "C": "_", "A": "0", "D": "0", "S": "0", "X": "0"},
]
HALVES = [ROOT / f"evals/cases/words_{half}.jsonl" for half in ("test", "dev")]


@pytest.fixture(scope="module")
def phrasings():
    return read_phrasings()


@pytest.fixture(scope="module")
def drawn(phrasings):
    examples = Examples(phrasings, seed=1)
    return [examples.draw() for _ in range(1500)]


@pytest.fixture(scope="module")
def cases():
    """Hashes of the phrasings and of the tenants of all cases: a failure must not show a case."""
    known = [case for half in HALVES for case in read_word_cases(half)]
    return {
        "phrasings": {
            hash(phrasing(case.text, [*case.names.tenants, *case.names.slo_classes]))
            for case in known
        },
        "tenants": {hash(plain(name)) for case in known for name in case.names.tenants},
    }


def test_every_code_is_one_that_decoding_allows_and_stands_for_changes_or_a_question(drawn):
    for each in drawn:
        assert re.fullmatch(pattern(each.marked.values), each.code), each
        assert isinstance(each.answer, Question) == (each.code == ASK), each
        assert mark(each.text, each.names) == each.marked


def test_every_kind_several_changes_and_questions_are_taught(drawn):
    kinds = {c.kind for each in drawn if isinstance(each.answer, tuple) for c in each.answer}
    assert kinds == {"weight", "floor", "slo_scale", "shed", "expect"}
    asked = sum(each.code == ASK for each in drawn) / len(drawn)
    assert 0.1 < asked < 0.4
    assert sum("; " in each.code for each in drawn) / len(drawn) > 0.1


def test_the_same_seed_draws_the_same_texts(phrasings):
    one, same, other = (Examples(phrasings, seed) for seed in (5, 5, 6))
    texts = [[each.draw().text for _ in range(20)] for each in (one, same, other)]
    assert texts[0] == texts[1] != texts[2]


def test_every_phrasing_can_be_said(phrasings):
    examples = Examples(phrasings, seed=2)
    for each in phrasings:
        assert (examples.plain(each).code == ASK) == each.is_ask


def test_a_part_of_the_phrasings_is_held_out_whatever_else_there_is(phrasings):
    held_out = [each for each in phrasings if each.is_held_out]
    assert 0.035 < len(held_out) / len(phrasings) < 0.065
    assert Phrasing(held_out[0].text, "ask").is_held_out


def without_slots(text, numbers):
    """The text with a name or a number of the given form for each slot."""
    return SLOT.sub(lambda slot: numbers[slot[1][0]], text)


def test_no_phrasing_is_that_of_a_case(phrasings, cases):
    found = {
        each.text
        for each in phrasings
        for numbers in NUMBERS
        if hash(phrasing(without_slots(each.text, numbers), ["_"])) in cases["phrasings"]
    }
    assert found == set()


def test_no_tenant_is_that_of_a_case(drawn, cases):
    tenants = {name for each in drawn for name in each.names.tenants}
    assert {name for name in tenants if hash(plain(name)) in cases["tenants"]} == set()


@pytest.mark.parametrize(
    ("line", "wrong"),
    [("no code", "not of the form"), ("{T1} ahead => weight T2 high", "the text has no T2"),
     ("{T1} ahead => weigh T1 high", "no change"), ("{Y1} ahead => ask", "a slot is"),
     ("=> ask", "not of the form"), ("{T1} => weight T1 12", "no amount")],
)  # fmt: skip
def test_a_line_that_cannot_be_taught_is_named(line, wrong, tmp_path):
    (tmp_path / "a.txt").write_text(f"# a comment\n\n{line}\n")
    with pytest.raises(PhrasingError, match=rf"a\.txt:3: .*{re.escape(wrong)}"):
        read_phrasings(tmp_path)


def test_a_folder_without_phrasings_is_an_error(tmp_path):
    with pytest.raises(PhrasingError, match="no phrasings"):
        read_phrasings(tmp_path)

"""The admission test: readers of the situation pass, namers of the first option do not."""

from dataclasses import replace

import pytest

from hmas_agents.agents.model_admission import (
    AdmissionError,
    ExamCase,
    examine,
    find,
    keep,
    rotations,
)
from hmas_agents.agents.policy_agent import PolicyReply
from hmas_agents.config import ModelConfig
from hmas_agents.records import Proposal
from prompts.loader import load_prompt

ALLOWED = ("fcfs", "edf", "slide")
PROMPT = load_prompt("policy", 1)
CONFIG = ModelConfig(name="m", admission_rotations=3)


def messages(best):
    return lambda order: [{"role": "user", "content": f"{best}: {' '.join(order)}"}]


CASES = [ExamCase(messages(best), ALLOWED, frozenset({best})) for best in ALLOWED * 3]


def reply(*policies):
    return PolicyReply(proposals=[Proposal("model", policy) for policy in policies], model="m")


def reads(sent, _):
    return reply(sent[0]["content"].partition(":")[0])


def test_a_model_that_reads_the_situation_passes():
    result = examine(reads, CASES, PROMPT, CONFIG)
    assert (result.accuracy, result.steadiness, result.cases) == (1.0, 1.0, 9)
    assert result.passed
    assert result.fault == ""


def test_a_model_that_names_the_first_option_fails_on_both():
    result = examine(lambda _, order: reply(order[0]), CASES, PROMPT, CONFIG)
    assert result.accuracy == pytest.approx(1 / 3)
    assert result.steadiness == pytest.approx(1 / 3)
    assert result.fault == (
        "model_not_admitted: accuracy 0.33 (least 0.8), steadiness 0.33 (least 0.9)"
    )


@pytest.mark.parametrize("answer", [reply("slide"), reply()])
def test_one_answer_to_everything_or_none_at_all_fails(answer):
    result = examine(lambda *_: answer, CASES, PROMPT, CONFIG)
    assert result.accuracy <= 1 / 3
    assert not result.passed


def test_without_cases_nobody_is_admitted():
    lenient = ModelConfig(admission_accuracy=0.0, admission_steadiness=0.0)
    assert not examine(reads, [], PROMPT, lenient).passed


def test_each_rotation_is_asked_in_its_own_order():
    asked = []

    def ask(sent, order):
        asked.append((sent[0]["content"], order))
        return reads(sent, order)

    examine(ask, CASES[:1], PROMPT, CONFIG)
    assert [order for _, order in asked] == rotations(ALLOWED, 3)
    assert all(text == f"fcfs: {' '.join(order)}" for text, order in asked)


def test_rotations_are_different_and_evenly_apart():
    assert rotations(("a", "b", "c", "d"), 2) == [("a", "b", "c", "d"), ("c", "d", "a", "b")]
    assert len(set(rotations(ALLOWED, 99))) == len(ALLOWED)


def test_results_are_kept_per_model_and_prompt(tmp_path):
    path = tmp_path / "var" / "model_admission.json"
    good = examine(reads, CASES, PROMPT, CONFIG)
    other = replace(good, model="other", accuracy=0.1)
    assert find(path, "m", PROMPT) is None
    for result in (replace(good, accuracy=0.0), other, good):
        keep(path, result)
    assert find(path, "m", PROMPT) == good
    assert find(path, "other", PROMPT) == other
    assert find(path, "m", replace(PROMPT, system="another")) is None


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "model_admission.json"
    path.write_text("[{")
    with pytest.raises(AdmissionError, match=r"model_admission\.json: .*; delete it"):
        find(path, "m", PROMPT)

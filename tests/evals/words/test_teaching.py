"""Is what was taught judged rightly, and does the card say what was found?"""

import json

import numpy as np
import pytest

from evals.words import teaching
from evals.words.calibration import MAX_WRONG, calibrated
from evals.words.word_cases import WordCase
from hmas_agents.agents.chat import Answer
from hmas_agents.intent.change import Names, Question, read_answer
from hmas_agents.intent.code import pattern
from hmas_agents.intent.marks import mark
from hmas_agents.intent.taught_reader import ADAPTER, RESULTS, prompt_of
from hmas_agents.teach.card import card
from hmas_agents.teach.phrasings import read_phrasings
from tests.command_line import run_hmas

NAMES = Names(tenants=("acme",), slo_classes=("batch",))


def test_confidence_is_the_share_that_was_right():
    rng = np.random.default_rng(1)
    logprobs = -rng.exponential(2.0, 4000)
    agrees = rng.random(4000) < 0.4
    right = rng.random(4000) < 1 / (1 + np.exp(-(2 + 1.5 * logprobs + 2 * agrees)))
    curve = calibrated(logprobs.tolist(), agrees.tolist(), right.tolist(), [False] * 4000)
    for logprob in (-0.1, -1.0, -2.0, -4.0):
        for agree in (False, True):
            assert curve.share_right(logprob, agrees=agree) == pytest.approx(
                1 / (1 + np.exp(-(2 + 1.5 * logprob + 2 * agree))), abs=0.04
            )
    said = zip(logprobs, agrees, right, strict=True)
    wrong = [(p, bool(agree)) for p, agree, is_right in said if not is_right]
    unasked = sum(curve.share_right(p, agrees=agree) >= curve.ask_below for p, agree in wrong)
    assert unasked <= MAX_WRONG * 4000
    assert unasked >= MAX_WRONG * 4000 - 2  # and no lower than it has to be


def test_where_all_are_right_nothing_is_certain_and_the_rest_is_asked():
    curve = calibrated([-0.1] * 20, [False] * 20, [True] * 20, [False] * 20)
    assert 0.8 < curve.share_right(-0.1, agrees=False) < 1
    assert curve.ask_below == 0.5


def test_a_judged_model_gets_its_scores_and_asks_where_it_is_not_sure():
    texts = [("acme ahead", "weight T1 high"), ("batch can rest", "weight C1 low"), ("hi", "ask")]
    cases = [
        WordCase(text, "12:00", NAMES, answer)
        for text, answer in zip(
            [text for text, _ in texts],
            [
                read_answer([{"kind": "weight", "tenant": "acme", "factor": 3.0}], NAMES, "12:00"),
                read_answer([{"kind": "weight", "slo_class": "batch", "factor": 3.0}], NAMES,
                            "12:00"),
                Question(question="?"),
            ],
            strict=True,
        )
    ]  # fmt: skip
    said = {prompt_of(mark(text, NAMES).text): code for text, code in texts}
    sure = {"weight T1 high": -0.001, "weight C1 low": -6.0, "ask": -0.001}
    told: list[tuple[int, int]] = []

    def complete(prompt: str, regex: str) -> Answer:
        assert regex in {pattern(["T1"]), pattern(["C1"]), pattern([])}
        return Answer(said[prompt], "stop", 1, 1, logprob=sure[said[prompt]])

    _, found = teaching.judge(complete, cases, lambda *at: told.append(at))
    assert [each.is_exact for each in found] == [True, False, True]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_held_out_phrasings_are_judged_and_not_taught():
    held_out = [each for each in read_phrasings() if each.is_held_out][:20]
    cases = teaching.held_out_cases(held_out)
    assert len(cases) == 20
    assert [isinstance(c.expected, Question) for c in cases] == [p.is_ask for p in held_out]


@pytest.mark.skipif(not ADAPTER.is_dir(), reason="no adapter was trained yet: `hmas teach`")
def test_the_card_of_our_adapter_says_what_its_results_say():
    results = json.loads((ADAPTER / RESULTS).read_text())
    assert (ADAPTER / "README.md").read_text() == card(results)
    assert sum(each.stat().st_size for each in ADAPTER.iterdir()) < 5_100_000


def test_an_adapter_is_never_written_over(tmp_path):
    result = run_hmas("teach", "--out", tmp_path)
    assert result.exit_code == 1
    assert "exists: remove it, or name another --out" in result.output
    assert "goes with --merge" in run_hmas("teach", "--adapter", tmp_path).output

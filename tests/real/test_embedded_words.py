"""Does the embedded model, with the adapter that we ship, read a text without a server?"""

import json

import pytest

from evals.words.contenders import GRAMMAR, TAUGHT, contenders
from evals.words.word_cases import read_word_cases
from evals.words.word_scores import outcomes

pytestmark = pytest.mark.real_vllm
CASE = {
    "text": "acme ahead", "now": "12:00",
    "contract": {"tenants": ["acme", "globex"], "slo_classes": ["batch"]},
    "expected": [{"kind": "weight", "tenant": "acme", "factor": 3}],
}  # fmt: skip


def test_the_taught_model_understands_what_the_grammar_does(tmp_path):
    file = tmp_path / "cases.jsonl"
    file.write_text(json.dumps(CASE))
    cases = read_word_cases(file)
    readers = contenders((GRAMMAR, TAUGHT), served=None, adapter=None)
    found = {each.name: outcomes(each, cases)[0].is_exact for each in readers}
    assert found == {GRAMMAR: True, TAUGHT: True}

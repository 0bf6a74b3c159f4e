"""What the twin starts from survives the ledger, and says what is wrong with it."""

import json

import pytest

from hmas_agents.situation import SituationError, decode_situation, encode_situation
from tests.agents.situations import situation


def test_a_situation_reads_back_equal_from_json():
    stored = json.loads(json.dumps(encode_situation(situation())))
    assert decode_situation(stored) == situation()


def test_a_broken_situation_names_the_key_and_the_value():
    stored = encode_situation(situation())
    stored["snapshot"]["cost"]["base_s"] = "fast"
    with pytest.raises(SituationError, match=r"snapshot.cost.base_s: .*'fast'"):
        decode_situation(stored)

"""Is a real vLLM bound to the codes of a text, and does it say how likely its answer is?"""

import re
from contextlib import closing

import pytest

from hmas_agents.config import load_config
from hmas_agents.intent.code import pattern
from hmas_agents.intent.endpoint import MAX_TOKENS, Endpoint
from tests.real.conftest import TOKEN, RealServer

pytestmark = pytest.mark.real_vllm


def test_what_is_served_writes_a_code_even_untaught(server: RealServer) -> None:
    config = load_config(None, {"model.base_url": f"{server.url}/v1", "model.timeout_s": 60.0})
    regex = pattern(["T1", "C1", "X1", "A1", "D1", "S1"])
    with closing(Endpoint(config.model, TOKEN)) as served:
        answer = served.complete("T1 launches at A1, reckon with X1 their C1\n", regex)
    assert answer.logprob is not None
    assert answer.logprob < 0
    assert answer.completion_tokens == MAX_TOKENS or re.fullmatch(regex, answer.text)

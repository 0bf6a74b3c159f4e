"""A model reads words: what it is asked, what is taken of its reply, and what is not."""

import json
from contextlib import closing

import pytest

from hmas_agents.agents.chat import ModelFault
from hmas_agents.config import load_config
from hmas_agents.intent.change import Names
from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.model_reader import ModelReader
from prompts.loader import load_prompt
from tests.agents.model_server import completion, serving

NAMES = Names(tenants=("acme", "globex"), slo_classes=("chat", "bulk"))
NOTHING = {"tenant": None, "slo_class": None, "from": None, "until": None, "for_min": None}


def said(*changes, question=""):
    return json.dumps({"changes": [NOTHING | each for each in changes], "question": question})


def sure(text, *logprobs):
    body = completion(text)
    body["choices"][0]["logprobs"] = {"content": [{"token": "x", "logprob": p} for p in logprobs]}
    return body


def read(text, answer, now="12:00"):
    with serving(answer) as endpoint:
        model = load_config(None, {"model.base_url": endpoint.url, "model.timeout_s": 5.0}).model
        with closing(Endpoint(model, "token")) as asked:
            reader = ModelReader(asked.chat, load_prompt("intent", "current"))
            return reader.read(text, now, NAMES), endpoint.asked


SURGE = {"kind": "expect", "tenant": "acme", "amount": 3, "from": "14:00"}


def test_a_reply_becomes_changes_and_the_question_names_what_there_is():
    text = 'acme launches at 14:00, expect 3x; "shed" bulk by 40% for 30 minutes'
    shed = {"kind": "shed", "slo_class": "bulk", "amount": 0.4, "for_min": 30}
    reading, asked = read(text, sure(said(SURGE, shed), -0.01, -0.02))
    assert reading.reply == [
        {"kind": "expect", "tenant": "acme", "from": "14:00", "factor": 3},
        {"kind": "shed", "slo_class": "bulk", "for_min": 30, "share": 0.4},
    ]
    (request,) = asked
    assert json.dumps(text) in request["messages"][1]["content"]
    assert "It is 12:00." in request["messages"][1]["content"]
    schema = request["response_format"]["json_schema"]["schema"]
    change = schema["properties"]["changes"]["items"]["properties"]
    assert change["tenant"] == {"enum": [None, "acme", "globex"]}
    assert request["vllm_xargs"]["tenant"] == "hmas"


@pytest.mark.parametrize(
    ("logprobs", "confidence"),
    [((-0.7, -0.7), 0.2466), ((-0.0001,), 0.9), ((), 0.5), ((float("nan"),), 0.5), ((3.0,), 0.5)],
)
def test_a_models_own_confidence_is_never_enough_to_do_without_a_person(logprobs, confidence):
    reading, _ = read("expect 3x from acme from 14:00", sure(said(SURGE), *logprobs))
    assert reading.confidence == pytest.approx(confidence, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "change", "invented"),
    [("expect 3x from acme", SURGE, "14:00"),
     ("protect acme", {"kind": "weight", "tenant": "globex", "amount": 3}, "globex"),
     ("protect acme", {"kind": "weight", "tenant": "acme", "slo_class": "chat", "amount": 3},
      "chat"),
     ("protect acme", {"kind": "weight", "tenant": "acme", "amount": 7}, "7"),
     ("protect acme", {"kind": "weight", "tenant": "acme", "amount": 3, "for_min": 60}, "60")],
)  # fmt: skip
def test_what_the_text_does_not_say_is_asked_back(text, change, invented):
    reading, _ = read(text, sure(said(change), -0.01))
    assert reading.reply == {"question": f"You did not say {invented}."}


@pytest.mark.parametrize(
    ("text", "change"),
    [("protect acme", {"kind": "weight", "tenant": "acme", "amount": 3}),
     ("in 20 minutes acme can wait", {"kind": "weight", "tenant": "acme", "amount": 0.3,
                                      "from": "12:20"}),
     ("30% tighter for chat", {"kind": "slo_scale", "slo_class": "chat", "amount": 0.7}),
     ("chat twice as fast", {"kind": "slo_scale", "slo_class": "chat", "amount": 0.5}),
     ("let in only 40% of bulk", {"kind": "shed", "slo_class": "bulk", "amount": 0.6})],
)  # fmt: skip
def test_what_follows_from_the_text_is_taken(text, change):
    reading, _ = read(text, sure(said(change), -0.01))
    assert isinstance(reading.reply, list)


@pytest.mark.parametrize(
    "reply", ["", "nonsense", "[]", "null", '{"changes": 3}', '{"changes": [3], "question": ""}',
              '{"changes": [{}], "question": ""}', "[" * 20_000],
)  # fmt: skip
def test_what_is_no_reply_is_no_change(reply):
    reading, _ = read("protect acme", completion(reply))
    assert reading.reply is None


def test_a_question_of_the_model_is_asked():
    reading, _ = read("make it better", completion(said(question="Whom?")))
    assert reading.reply == {"question": "Whom?"}


def test_an_endpoint_that_refuses_is_a_fault():
    with pytest.raises(ModelFault, match="model_unreachable"):
        read("protect acme", 500)

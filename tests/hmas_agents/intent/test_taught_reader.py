"""What does the reader make of what the taught model answers, and of what it does not answer?"""

import json
from contextlib import closing

import pytest

from hmas_agents.agents.chat import Answer, ModelFault
from hmas_agents.config import ConfigError, load_config
from hmas_agents.intent import taught_reader
from hmas_agents.intent.change import Names
from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.taught_reader import Calibration, TaughtReader, taught_at
from tests.agents.model_server import serving
from tests.evals.fake_openai import FakeOpenAI
from tests.evals.fake_openai import serving as serving_pages

NAMES = Names(tenants=("acme", "globex"), slo_classes=("chat", "bulk"))
CURVE = Calibration(intercept=2.0, slope=1.0, agreed=1.0, ask_below=0.6)
TEXT = "acme launches at 14:00, reckon with 3 times their requests"
SURGE = [{"kind": "expect", "tenant": "acme", "factor": 3.0, "from": "14:00"}]


def completion(text, logprobs=(-0.1, -0.1)):
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    if logprobs is not None:
        choice["logprobs"] = {"token_logprobs": list(logprobs), "tokens": ["x"] * len(logprobs)}
    return {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def read(answer, text=TEXT):
    with serving(answer) as endpoint:
        config = load_config(None, {"model.base_url": endpoint.url, "model.timeout_s": 2.0}).model
        with closing(Endpoint(config, "token")) as asked:
            reader = TaughtReader(asked.complete, CURVE)
            return reader.read(text, "12:00", NAMES), endpoint.asked


def test_the_marked_text_is_asked_and_the_code_becomes_changes():
    reading, [request] = read(completion("expect T1 X1 from A1"))
    assert reading.reply == SURGE
    assert reading.confidence == pytest.approx(0.943, abs=1e-3)  # of 2 - 0.2 + 1
    assert request["prompt"] == "T1 launches at A1, reckon with X1 their requests\n"
    assert "expect" in request["structured_outputs"]["regex"]
    assert request["vllm_xargs"]["tenant"] == "hmas"
    assert (request["temperature"], request["logprobs"]) == (0.0, 1)


@pytest.mark.parametrize(
    "answer",
    [completion("ask"), completion("expect T2 X1"),
     completion("expect T1 X1 from A1; expect T1 usual"), completion("sure, here is"),
     completion("expect T1 X1 fro"), completion("")],
    ids=["asks", "no such mark", "contradiction", "chat", "cut short", "nothing"],
)  # fmt: skip
def test_it_asks_back(answer):
    reading, _ = read(answer)
    assert list(reading.reply) == ["question"]


@pytest.mark.parametrize(
    "logprobs", [(-2.0, -2.0), None, (3.0,)], ids=["unlikely", "not told", "impossible"]
)
def test_it_says_what_it_guesses_and_that_this_is_not_clear(logprobs):
    reading, _ = read(completion("expect T1 X1 from A1", logprobs))
    assert reading.reply == SURGE
    assert not reading.is_clear


@pytest.mark.parametrize(
    ("answer", "code"),
    [(500, "model_unreachable"), (b"no json", "reply_invalid"), ({"choices": []}, "reply_invalid"),
     ({"choices": [{"index": 0}]}, "reply_invalid"), (None, "model_timeout")],
)  # fmt: skip
def test_an_endpoint_that_does_not_answer_is_a_fault(answer, code):
    with pytest.raises(ModelFault) as fault:
        read(answer)
    assert fault.value.code == code


def test_what_is_too_long_is_asked_back_about_unread():
    reading, asked = read(completion("ask"), "acme ahead. " * 100)
    assert list(reading.reply) == ["question"]
    assert asked == []


def test_confidence_grows_with_probability_and_is_none_without_it():
    shares = [
        CURVE.share_right(logprob, agrees=False) for logprob in (None, -1e6, -5.0, -1.0, 0.0)
    ]
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] < CURVE.share_right(0.0, agrees=True) < 1.0
    assert CURVE.share_right(None, agrees=True) == 0.0


def test_it_is_surer_of_what_the_grammar_reads_too():
    def answered(text, code):
        said = Answer(code, "stop", 1, 1, logprob=-2.0)
        return TaughtReader(lambda _prompt, _regex: said, CURVE).read(text, "12:00", NAMES)

    assert answered("acme ahead", "weight T1 high").confidence == pytest.approx(0.731, abs=1e-3)
    assert not answered("acme ahead", "weight T1 low").is_clear
    assert not answered("acme: blue lights", "weight T1 high").is_clear


@pytest.mark.parametrize("written", [None, "no json", "{}", '{"calibration": {"slope": 1}}'])
def test_an_adapter_without_calibration_is_refused(written, tmp_path):
    if written is not None:
        (tmp_path / "results.json").write_text(written)
    with pytest.raises(ConfigError, match=r"results\.json: not of an adapter"):
        Calibration.of(tmp_path)


def test_an_answer_may_come_from_anywhere():
    said = Answer("weight T1 high", "stop", 1, 1, logprob=-0.01)
    reading = TaughtReader(lambda _prompt, _regex: said, CURVE).read("acme ahead", "1:00", NAMES)
    assert reading.reply == [{"kind": "weight", "tenant": "acme", "factor": 3.0}]


@pytest.mark.parametrize(
    ("cards", "name", "is_taught"),
    [([{"id": "/models/smollm2-135m-words"}], "", True),
     ([{"id": "hmas", "root": "var/models/smollm2-135m-words"}], "", True),
     ([{"id": "base"}, {"id": "smollm2-135m-words", "root": "adapter"}], "", True),
     ([{"id": "base"}, {"id": "smollm2-135m-words", "root": "adapter"}], "base", False),
     ([{"id": "smollm2-135m", "root": "var/models/smollm2-135m"}], "", False), ([], "", False)],
)  # fmt: skip
def test_the_taught_model_is_known_by_its_name(cards, name, is_taught, monkeypatch, tmp_path):
    curve = {"intercept": 2.0, "slope": 1.0, "agreed": 0.0, "ask_below": 0.6}
    (tmp_path / "results.json").write_text(json.dumps({"calibration": curve}))
    monkeypatch.setattr(taught_reader, "ADAPTER", tmp_path)
    fake = FakeOpenAI()
    fake.pages["/v1/models"] = {"data": cards}
    with serving_pages(fake):
        given = {"model.base_url": f"{fake.url}/v1", "model.name": name}
        assert (taught_at(load_config(None, given).model) is not None) == is_taught


def test_where_nothing_is_served_nobody_taught_reads():
    assert taught_at(load_config(None, {"model.base_url": "http://127.0.0.1:9/v1"}).model) is None

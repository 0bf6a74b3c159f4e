"""The policy agent against a real endpoint: one retry, and every fault has its code."""

import pytest

from hmas_agents.agents.policy_agent import PolicyAgent, PolicyReply
from hmas_agents.agents.reply import json_schema, read_reply
from hmas_agents.config import ModelConfig
from prompts.loader import PromptError, load_prompt
from tests.agents.model_server import completion, proposals, serving

ALLOWED = ("fcfs", "edf", "slide")
MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


def ask(url: str, **config) -> PolicyReply:
    agent = PolicyAgent(ModelConfig(base_url=url, **config), load_prompt("policy", 1))
    try:
        return agent.propose(MESSAGES, ALLOWED)
    finally:
        agent.close()


def codes(reply: PolicyReply) -> list[str]:
    return [fault.partition(":")[0] for fault in reply.faults]


def test_a_good_reply_is_taken_in_order_with_its_raw_text():
    text = proposals("slide", "edf")
    with serving(completion(text)) as model:
        reply = ask(model.url)
    assert [p.policy for p in reply.proposals] == ["slide", "edf"]
    assert all(p.source == "model" for p in reply.proposals)
    assert (reply.raw_replies, reply.faults) == ([text], [])
    assert (reply.model, reply.tokens) == ("small", 460)
    assert reply.latency_s > 0


def test_what_is_sent():
    with serving(completion(proposals("edf"))) as model:
        ask(model.url, name="mine", tenant="ops", timeout_s=10.0)
    (sent,) = model.asked
    head = load_prompt("policy", 1).head
    assert sent["model"] == "mine"
    assert sent["messages"] == MESSAGES
    assert (sent["temperature"], sent["max_tokens"]) == (head.temperature, head.max_tokens)
    assert sent["vllm_xargs"] == {"tenant": "ops", "slo_e2e_ms": 7500.0}
    schema = sent["response_format"]["json_schema"]["schema"]
    item = schema["properties"]["proposals"]["items"]["properties"]
    assert item["policy"]["enum"] == list(ALLOWED)


def test_without_a_tenant_nothing_beyond_the_standard_is_sent():
    with serving(completion(proposals("edf"))) as model:
        ask(model.url, tenant="")
    assert "vllm_xargs" not in model.asked[0]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (completion("I would choose edf."), "reply_invalid"),
        (completion('{"proposals": []}'), "reply_invalid"),
        (completion('{"proposals": [{"policy": "edf", "confidence": 7}]}'), "reply_invalid"),
        (completion(""), "reply_invalid"),
        (completion('{"proposals": [{"pol', "length"), "reply_truncated"),
        (completion(proposals("lottery")), "unknown_policy"),
        (completion(proposals("sjf")), "unknown_policy"),
        (b"<html>garbage", "reply_invalid"),
        (b'{"object": "surprise"}', "reply_invalid"),
        (500, "model_unreachable"),
        (404, "model_unreachable"),
    ],
)
def test_a_fault_is_retried_once_and_then_recorded(answer, code):
    with serving(answer) as model:
        reply = ask(model.url)
    assert reply.proposals == []
    assert codes(reply) == [code, code]
    assert len(model.asked) == 2


def test_a_timeout_is_retried_once_and_then_recorded():
    with serving(None) as model:
        reply = ask(model.url, timeout_s=0.2)
        assert codes(reply) == ["model_timeout", "model_timeout"]
        assert len(model.asked) == 2
    assert reply.proposals == []


def test_nobody_listening_is_recorded():
    with serving(500) as model:
        url = model.url
    assert codes(ask(url, name="x")) == ["model_unreachable", "model_unreachable"]


def test_a_retry_that_succeeds_keeps_the_first_fault_and_asks_for_one():
    with serving(completion("{", "length"), completion(proposals("edf"))) as model:
        reply = ask(model.url)
    assert [p.policy for p in reply.proposals] == ["edf"]
    assert codes(reply) == ["reply_truncated"]
    assert len(reply.raw_replies) == 2
    schemas = [s["response_format"]["json_schema"]["schema"] for s in model.asked]
    assert [s["properties"]["proposals"]["maxItems"] for s in schemas] == [3, 1]


def test_usable_proposals_survive_an_unknown_one():
    reading = read_reply(proposals("lottery", "edf"), ALLOWED)
    assert [p.policy for p in reading.proposals] == ["edf"]
    assert reading.faults == ["unknown_policy: 'lottery'"]


def test_extra_keys_and_long_reasons_are_invalid():
    assert read_reply('{"proposals": [{"policy": "edf", "confidence": 1, "x": 1}]}', ALLOWED).faults
    long = proposals("edf").replace("try edf", "y" * 161)
    assert read_reply(long, ALLOWED).faults


def test_parameters_in_the_schema_are_bounded():
    item = json_schema(("edf", "slide"), 3)["properties"]["proposals"]["items"]
    kappa = item["properties"]["params"]["properties"]["kappa"]
    assert (kappa["minimum"], kappa["maximum"]) == (0, 1000)


def test_a_prompt_for_another_schema_is_refused(tmp_path):
    text = load_prompt("policy", 1).path.read_text()
    (tmp_path / "policy").mkdir()
    target = tmp_path / "policy" / "v1.md"
    target.write_text(text.replace("schema_version: 1", "schema_version: 2"))
    with pytest.raises(PromptError, match="schema_version"):
        PolicyAgent(ModelConfig(), load_prompt("policy", 1, tmp_path))

"""The policy agent against a real endpoint: one retry, and every fault has its code."""

from dataclasses import replace
from pathlib import Path

import pytest

from hmas_agents.agents.cost import Cost, step_seconds
from hmas_agents.agents.policy_agent import PolicyAgent, PolicyReply
from hmas_agents.config import ModelConfig, load_config
from prompts.loader import PromptError, load_prompt
from serving.contracts import BatchState
from tests.agents.model_server import completion, proposals, serving
from tests.hmas_agents.samples import COST, snapshot

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
    items = schema["properties"]["proposals"]["items"]["anyOf"]
    named = [name for item in items for name in item["properties"]["policy"]["enum"]]
    assert sorted(named) == sorted(ALLOWED)


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


def test_a_prompt_for_another_schema_is_refused(tmp_path):
    text = load_prompt("policy", 1).path.read_text()
    (tmp_path / "policy").mkdir()
    target = tmp_path / "policy" / "v1.md"
    target.write_text(text.replace("schema_version: 1", "schema_version: 2"))
    with pytest.raises(PromptError, match="schema_version"):
        PolicyAgent(ModelConfig(), load_prompt("policy", 1, tmp_path))
    agent = PolicyAgent(ModelConfig(), load_prompt("policy", 1))
    with pytest.raises(PromptError, match="schema_version"):
        agent.use(load_prompt("policy", 1, tmp_path))
    agent.close()


def test_another_version_of_the_prompt_brings_its_settings():
    first = load_prompt("policy", 1)
    hotter = replace(first, head=first.head.model_copy(update={"temperature": 0.6}))
    with serving(completion(proposals("edf"))) as model:
        agent = PolicyAgent(ModelConfig(base_url=model.url), first)
        agent.propose(MESSAGES, ALLOWED)
        agent.use(hotter)
        agent.propose(MESSAGES, ALLOWED)
        agent.close()
    assert [body["temperature"] for body in model.asked] == [0.0, 0.6]


# -- thinking models ----------------------------------------------------------------------


@pytest.mark.parametrize("opened", ["<think>", ""])
def test_thinking_before_the_answer_is_thrown_away_and_said(opened):
    thinking = f'{opened}maybe {{"proposals": []}}?\n</think>'
    with serving(completion(thinking + "\n\n" + proposals("edf"))) as model:
        reply = ask(model.url)
    assert [p.policy for p in reply.proposals] == ["edf"]
    assert reply.faults == [f"reply_thought: {len(thinking)} characters before the answer"]
    assert reply.raw_replies[0].startswith(thinking)


def test_reasoning_beside_the_answer_is_not_read():
    body = completion(proposals("edf"))
    body["choices"][0]["message"]["reasoning_content"] = proposals("fcfs")
    with serving(body) as model:
        reply = ask(model.url)
    assert ([p.policy for p in reply.proposals], reply.faults) == (["edf"], [])


def test_the_example_for_a_small_instruct_model_asks_as_it_says():
    example = Path(__file__).parents[2] / "hmas_agents" / "examples" / "qwen3_4b.toml"
    config = load_config(example).model
    prompt = load_prompt("policy", "current")
    with serving(completion(proposals("edf"))) as model:
        agent = PolicyAgent(config.model_copy(update={"base_url": model.url}), prompt)
        assert agent.propose(MESSAGES, ALLOWED).proposals
        agent.close()
    (sent,) = model.asked
    assert sent["model"] == "Qwen/Qwen3-4B"
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    assert sent["seed"] == 7
    head = prompt.head  # where the prompt has a setting of its own, that one holds
    assert sent["max_tokens"] == (head.max_tokens or config.max_tokens)
    assert sent["temperature"] == (config.temperature if head.temperature is None else 0.0)
    assert sent["response_format"]["type"] == "json_schema"
    assert "vllm_xargs" not in sent


def test_what_the_endpoint_takes_beyond_the_standard_is_sent_as_it_is():
    extra = {"top_k": 20, "vllm_xargs": {"slo_class": "batch"}}
    with serving(completion(proposals("edf"))) as model:
        ask(model.url, extra_body=extra, tenant="ops", timeout_s=10.0)
    assert model.asked[0]["top_k"] == 20
    xargs = {"slo_class": "batch", "tenant": "ops", "slo_e2e_ms": 7500.0}
    assert model.asked[0]["vllm_xargs"] == xargs


# -- cost ---------------------------------------------------------------------------------


def agent_for(url: str, **config) -> PolicyAgent:
    settings = ModelConfig(base_url=url, **config)
    return PolicyAgent(settings, load_prompt("policy", 1), "http://localhost:8000")


def test_tokens_of_all_attempts_count():
    with serving(completion("{", "length"), completion(proposals("edf"))) as model:
        reply = ask(model.url)
    assert (reply.tokens, reply.prompt_tokens) == (920, 800)


def test_an_endpoint_that_counts_no_tokens_is_estimated_and_said():
    body = completion(proposals("edf"))
    body["usage"] = {"prompt_tokens": -1, "completion_tokens": "many"}
    with serving(body) as model:
        reply = ask(model.url)
    assert codes(reply) == ["usage_missing"]
    assert reply.prompt_tokens == 2  # "s" and "u"
    assert reply.tokens == 2 + -(-len(proposals("edf")) // 4)


def test_a_reply_that_never_comes_counts_as_its_longest():
    with serving(None) as model:
        reply = ask(model.url, timeout_s=2.0)  # a busy machine, too, lists its models in that time
    assert reply.tokens == 2 * (2 + 200)


def test_on_the_controlled_engine_the_share_of_its_steps_is_said():
    seen = snapshot(100.0, batch=BatchState(decoding=9))
    with serving(completion(proposals("edf"))) as model:
        agent = agent_for(model.url, on_engine=True)
        first = agent.propose(MESSAGES, ALLOWED, seen)
        second = agent.propose(MESSAGES, ALLOWED, replace(seen, now_s=160.0))
        agent.close()
    assert first.step_share is None  # since when?
    assert second.step_share == pytest.approx(step_seconds(Cost(400, 60), COST, 9) / 60.0)


def test_elsewhere_there_is_no_share():
    with serving(completion(proposals("edf"))) as model:
        agent = agent_for(model.url)
        shares = [agent.propose(MESSAGES, ALLOWED, snapshot(t)).step_share for t in (1.0, 61.0)]
        agent.close()
    assert shares == [None, None]


@pytest.mark.parametrize(
    ("limits", "fit", "why"),
    [
        ({"max_tokens_per_hour": 1000}, 2, "920 tokens spent in the last hour"),
        # A decision takes 0.42 s of steps while nobody else decodes; this is 1.32 s.
        ({"max_step_share": 0.0022, "on_engine": True}, 3, "step time spent in the last 600 s"),
    ],
)
def test_a_decision_beyond_the_budget_is_made_without_the_model(limits, fit, why):
    with serving(completion(proposals("edf"))) as model:
        agent = agent_for(model.url, **limits)
        replies = [agent.propose(MESSAGES, ALLOWED, snapshot(60.0 * i)) for i in range(fit + 1)]
        later = agent.propose(MESSAGES, ALLOWED, snapshot(4000.0))
        free = agent.propose(MESSAGES, ALLOWED)  # a replay is not on the budget
        agent.close()
    *asked, skipped = replies
    assert all(reply.proposals for reply in asked)
    assert codes(skipped) == ["model_skipped"]
    assert why in skipped.faults[0]
    assert (skipped.latency_s, skipped.tokens, skipped.raw_replies) == (0.0, 0, [])
    assert later.proposals
    assert free.proposals

"""What does the language model propose? Asks any OpenAI-compatible endpoint.

Called by the long horizon, never in a serving path. The agent cannot fail: every
outcome is a `PolicyReply`, whose faults (`code: detail`) go to the ledger and whose
empty proposals leave the choice to the rule table.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from hmas_agents.agents.budget import ModelBudget
from hmas_agents.agents.chat import (
    GRACE_S,
    MAX_RAW_CHARS,
    Answer,
    ModelFault,
    OneAtATime,
    ask,
    first_model,
    model_client,
    own_request,
)
from hmas_agents.agents.cost import (
    Cost,
    decoding_per_rank,
    runs_on_engine,
    step_seconds,
    tokens_of_text,
)
from hmas_agents.agents.reply import (
    MAX_PROPOSALS,
    SCHEMA_VERSION,
    invented_numbers,
    json_schema,
    read_reply,
    without_thinking,
)
from hmas_agents.config import ModelConfig
from hmas_agents.records import Proposal
from hmas_agents.telemetry.chat import chat_span
from prompts.loader import Message, Prompt, PromptError
from serving.contracts import Snapshot
from serving.engines.ranks import rank_count

IN_TIME = 0.75  # of the timeout: the end-to-end SLO of the agent's own requests


@dataclass(slots=True)
class PolicyReply:
    """What came back.

    Attributes:
        latency_s: wall-clock over all attempts; 0 when the model was not asked.
        tokens: prompt and reply of all attempts; four characters count as one where the
            endpoint did not count, and a reply that never came as its longest.
        prompt_tokens: of these, the prompts'.
        step_share: of the controlled engine's step time since the last decision; None
            where the model runs elsewhere, and for the first decision.
    """

    proposals: list[Proposal] = field(default_factory=list)
    raw_replies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    latency_s: float = 0.0
    tokens: int = 0
    prompt_tokens: int = 0
    step_share: float | None = None
    model: str = ""


class PolicyAgent:
    """Ranks policies by asking the model once, and once more if that came to nothing.

    Fault codes: `model_timeout`, `model_unreachable` (no connection, or an HTTP
    error), `model_skipped` (the budget), `reply_truncated`, `reply_invalid`,
    `unknown_policy`; and notes on replies that are used all the same:
    `reply_thought` (thinking before the answer, paid for and thrown away),
    `reason_invented_number`, `usage_missing` (tokens are estimates).

    Args:
        engine_url: of the controlled engine, to know whether the model runs on it.
        token: signs the questions; empty means HMAS_TOKEN.

    Raises:
        PromptError: at construction, when the prompt asks for another reply schema.
    """

    def __init__(
        self, config: ModelConfig, prompt: Prompt, engine_url: str = "", token: str = ""
    ) -> None:
        self.use(prompt)
        self._config, self._token = config, token
        self._model = config.name
        self._client = model_client(
            config.base_url, os.environ.get(config.api_key_env) or "none", config.timeout_s
        )
        self._calls = OneAtATime()
        self._on_engine = runs_on_engine(config.base_url, engine_url, config.on_engine)
        share = config.max_step_share if self._on_engine else 0.0
        self._budget = ModelBudget(config.max_tokens_per_hour, share)
        self._decided_s: float | None = None

    def use(self, prompt: Prompt) -> None:
        """Take the model settings of another version of the prompt from here on.

        Raises:
            PromptError: it asks for another reply schema; the one before stays in use.
        """
        if prompt.head.schema_version != SCHEMA_VERSION:
            raise PromptError(
                f"{prompt.path}: schema_version: this agent reads replies of version "
                f"{SCHEMA_VERSION}, got {prompt.head.schema_version}"
            )
        self._head = prompt.head

    def propose(
        self, messages: list[Message], allowed: tuple[str, ...], snapshot: Snapshot | None = None
    ) -> PolicyReply:
        """At most three ranked proposals among `allowed` policies.

        The second attempt asks for one proposal only, which cures a truncated reply; it
        has what the first left of `max_latency_s`.

        Args:
            messages: the prompt, rendered.
            allowed: policies that may be named, in the order in which they are listed.
            snapshot: the engine as it is. With it the budget holds, on the engine's
                clock; without it (replays, evals) the model is asked whatever it costs.
        """
        reply = PolicyReply(model=self._model)
        if snapshot is not None and (refusal := self._refusal(messages, snapshot)):
            reply.faults.append(f"model_skipped: {refusal}")
            self._decided_s = snapshot.now_s
            return reply
        started = time.perf_counter()
        spent = []
        for max_proposals in (MAX_PROPOSALS, 1):
            left_s = self._config.max_latency_s - (time.perf_counter() - started)
            if left_s <= 0:
                break
            schema = json_schema(allowed, max_proposals)
            spent.append(self._attempt(messages, schema, allowed, left_s, reply))
            if reply.proposals:
                break
        reply.latency_s = time.perf_counter() - started
        reply.model = self._model
        total = sum(spent, Cost())
        reply.tokens, reply.prompt_tokens = total.tokens, total.prompt_tokens
        if snapshot is not None:
            self._charge(spent, snapshot, reply)
        return reply

    def reach_through(self, transport: httpx.BaseTransport) -> None:
        """Send requests through `transport` from here on, a recording for example."""
        self._client = self._client.copy(http_client=httpx.Client(transport=transport))

    def close(self) -> None:
        """Close the connections; whoever waits for a reply in another thread goes on at once."""
        self._calls.close()
        self._client.close()

    def _attempt(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        allowed: tuple[str, ...],
        left_s: float,
        reply: PolicyReply,
    ) -> Cost:
        """One attempt; adds what came of it to `reply`. What it cost."""
        timeout_s = min(self._config.timeout_s, left_s)
        request = self._request(messages, schema)
        try:
            with chat_span(request, self._config.base_url) as span:
                answer = self._calls.run(
                    lambda: self._complete(messages, schema, timeout_s), timeout_s + GRACE_S
                )
                span.answered(answer)
        except ModelFault as fault:
            reply.faults.append(str(fault))
            if fault.raw:
                reply.raw_replies.append(fault.raw)
            return self._most(messages) if fault.billed else Cost()
        text, thought = without_thinking(answer.text)
        reply.raw_replies.append(_kept(answer.text))
        if thought:
            reply.faults.append(f"reply_thought: {thought} characters before the answer")
        if answer.finish_reason == "length":
            detail = f"{len(answer.text)} characters without an end"
            reply.faults.append(f"reply_truncated: {detail}")
        else:
            reading = read_reply(text, allowed)
            reply.proposals += reading.proposals
            reply.faults += reading.faults
            sent = [message["content"] for message in messages]
            for proposal in reading.proposals:
                if invented := invented_numbers(proposal, sent):
                    detail = f"{proposal.policy}: {', '.join(invented)[:80]}"
                    reply.faults.append(f"reason_invented_number: {detail}")
        return self._counted(messages, answer, reply)

    def _complete(
        self, messages: list[Message], schema: dict[str, Any], timeout_s: float
    ) -> Answer:
        if not self._model:
            self._model = first_model(self._client, timeout_s)
        return ask(self._client, self._request(messages, schema), timeout_s)

    def _request(self, messages: list[Message], schema: dict[str, Any]) -> dict[str, Any]:
        head, config = self._head, self._config
        extra: dict[str, Any] = dict(config.extra_body)
        if config.tenant:  # only vLLM knows vllm_xargs; other endpoints get no tenant
            # On the engine that it steers the agent is a tenant like any other, and in overload a
            # request that cannot be in time comes last: it asks for what it needs, not for less.
            who = own_request(config.tenant, IN_TIME * config.timeout_s, self._token)
            given = extra.get("vllm_xargs")
            extra["vllm_xargs"] = {**given, **who} if isinstance(given, dict) else who
        return {
            "model": self._model,
            "messages": messages,
            "temperature": config.temperature if head.temperature is None else head.temperature,
            "max_tokens": head.max_tokens or config.max_tokens,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "policy_proposals", "schema": schema},
            },
            "extra_body": extra or None,
        }

    def _most(self, messages: list[Message]) -> Cost:
        """One attempt at its dearest, as far as can be said before it."""
        prompt = sum(tokens_of_text(message["content"]) for message in messages)
        return Cost(prompt, self._head.max_tokens or self._config.max_tokens)

    def _counted(self, messages: list[Message], answer: Answer, reply: PolicyReply) -> Cost:
        if answer.prompt_tokens is not None and answer.completion_tokens is not None:
            return Cost(answer.prompt_tokens, answer.completion_tokens)
        reply.faults.append("usage_missing: tokens are estimated from characters")
        return Cost(self._most(messages).prompt_tokens, tokens_of_text(answer.text))

    def _refusal(self, messages: list[Message], snapshot: Snapshot) -> str:
        expected = self._budget.expected(snapshot.now_s, self._most(messages))
        return self._budget.refusal(snapshot.now_s, expected, self._step_s(expected, snapshot))

    def _charge(self, spent: list[Cost], snapshot: Snapshot, reply: PolicyReply) -> None:
        """Charge the budget, and say which share of the engine's steps the asking took."""
        step_s = sum(self._step_s(cost, snapshot) for cost in spent)
        self._budget.spend(snapshot.now_s, sum(spent, Cost()), step_s)
        before_s, self._decided_s = self._decided_s, snapshot.now_s
        if self._on_engine and before_s is not None and before_s < snapshot.now_s:
            reply.step_share = step_s / (snapshot.now_s - before_s)

    def _step_s(self, cost: Cost, snapshot: Snapshot) -> float:
        """Step time on the controlled engine, per rank; 0 where the model runs elsewhere."""
        if not self._on_engine:
            return 0.0
        decoding = decoding_per_rank(snapshot)
        return step_seconds(cost, snapshot.cost, decoding) / rank_count(snapshot)


def _kept(text: str) -> str:
    """What the ledger keeps of a reply."""
    if len(text) <= MAX_RAW_CHARS:
        return text
    return f"{text[:MAX_RAW_CHARS]}... ({len(text)} characters)"

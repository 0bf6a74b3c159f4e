"""What does the language model propose? Asks any OpenAI-compatible endpoint.

Called by the long horizon, never in a serving path. The agent cannot fail: every
outcome is a `PolicyReply`, whose faults (`code: detail`) go to the ledger and whose
empty proposals leave the choice to the rule table.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import openai
from openai.types.chat import ChatCompletion

from hmas_agents.agents.reply import MAX_PROPOSALS, SCHEMA_VERSION, json_schema, read_reply
from hmas_agents.config import ModelConfig
from hmas_agents.records import Proposal
from prompts.loader import Message, Prompt, PromptError

IN_TIME = 0.75  # of the timeout: the end-to-end SLO of the agent's own requests


@dataclass(slots=True)
class PolicyReply:
    """What came back. `latency_s` is wall-clock over all attempts, `tokens` prompt and reply."""

    proposals: list[Proposal] = field(default_factory=list)
    raw_replies: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    latency_s: float = 0.0
    tokens: int = 0
    model: str = ""


class PolicyAgent:
    """Ranks policies by asking the model once, and once more if that came to nothing.

    Fault codes: `model_timeout`, `model_unreachable` (no connection, or an HTTP
    error), `reply_truncated`, `reply_invalid`, `unknown_policy`.

    Raises:
        PromptError: at construction, when the prompt asks for another reply schema.
    """

    def __init__(self, config: ModelConfig, prompt: Prompt) -> None:
        if prompt.head.schema_version != SCHEMA_VERSION:
            raise PromptError(
                f"{prompt.path}: schema_version: this agent reads replies of version "
                f"{SCHEMA_VERSION}, got {prompt.head.schema_version}"
            )
        self._config = config
        self._head = prompt.head
        self._model = config.name
        self._client = openai.OpenAI(
            base_url=config.base_url,
            api_key=os.environ.get(config.api_key_env) or "none",
            timeout=config.timeout_s,
            max_retries=0,
        )

    def propose(self, messages: list[Message], allowed: tuple[str, ...]) -> PolicyReply:
        """At most three ranked proposals among `allowed` policies.

        The second attempt asks for one proposal only, which cures a truncated reply.
        """
        reply = PolicyReply()
        started = time.perf_counter()
        for max_proposals in (MAX_PROPOSALS, 1):
            self._ask(messages, json_schema(allowed, max_proposals), allowed, reply)
            if reply.proposals:
                break
        reply.latency_s = time.perf_counter() - started
        reply.model = self._model
        return reply

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(
        self,
        messages: list[Message],
        schema: dict[str, Any],
        allowed: tuple[str, ...],
        reply: PolicyReply,
    ) -> None:
        """One attempt; adds what came of it to `reply`."""
        try:
            completion = self._complete(messages, schema)
        except openai.APITimeoutError:
            reply.faults.append(f"model_timeout: no reply within {self._config.timeout_s:g} s")
            return
        except openai.APIStatusError as error:
            detail = f"HTTP {error.status_code}: {error.message[:200]}"
            reply.faults.append(f"model_unreachable: {detail}")
            return
        except (openai.APIConnectionError, LookupError) as error:
            reply.faults.append(f"model_unreachable: {self._config.base_url}: {error}")
            return
        except (openai.OpenAIError, ValueError) as error:
            reply.faults.append(f"reply_invalid: not a chat completion: {str(error)[:200]}")
            return
        if not isinstance(completion, ChatCompletion) or not completion.choices:
            reply.raw_replies.append(str(completion)[:2000])
            reply.faults.append("reply_invalid: not a chat completion")
            return
        choice = completion.choices[0]
        text = choice.message.content or ""
        reply.raw_replies.append(text)
        reply.tokens += completion.usage.total_tokens if completion.usage else 0
        if choice.finish_reason == "length":
            reply.faults.append(f"reply_truncated: {len(text)} characters without an end")
            return
        reading = read_reply(text, allowed)
        reply.proposals += reading.proposals
        reply.faults += reading.faults

    def _complete(self, messages: list[Message], schema: dict[str, Any]) -> Any:
        if not self._model:
            listed = self._client.models.list().data
            if not listed:
                raise LookupError("the endpoint lists no model")
            self._model = listed[0].id
        head, config = self._head, self._config
        # On the engine that it steers the agent is a tenant like any other, and in overload a
        # request that cannot be in time comes last: it asks for what it needs, not for less.
        who = {"tenant": config.tenant, "slo_e2e_ms": 1000 * IN_TIME * config.timeout_s}
        return self._client.chat.completions.create(
            model=self._model,
            messages=messages,
            temperature=config.temperature if head.temperature is None else head.temperature,
            max_tokens=head.max_tokens or config.max_tokens,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "policy_proposals", "schema": schema},
            },
            # Only vLLM knows vllm_xargs; other endpoints are configured with no tenant.
            extra_body={"vllm_xargs": who} if config.tenant else None,
        )

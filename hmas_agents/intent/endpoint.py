"""How is a model asked about a text? At any OpenAI-compatible endpoint, one question at a time."""

import os
from collections.abc import Callable
from typing import Any

import openai

from hmas_agents.agents.chat import (
    GRACE_S,
    Answer,
    OneAtATime,
    ask,
    complete,
    first_model,
    model_client,
    own_request,
)
from hmas_agents.config import ModelConfig
from prompts.loader import FrontMatter, Message

MAX_TOKENS = 160  # of a code: a change takes about 15
Send = Callable[[openai.OpenAI, dict[str, Any], float], Answer]


class Endpoint:
    """A model that reads texts.

    Args:
        config: of the endpoint; without a name the first model that it lists is asked.
        token: signs the questions; empty means HMAS_TOKEN.
    """

    def __init__(self, config: ModelConfig, token: str = "") -> None:
        self._config, self._token = config, token
        self._model, self._calls = config.name, OneAtATime()
        self._client = model_client(
            config.base_url, os.environ.get(config.api_key_env) or "none", config.timeout_s
        )

    def complete(self, prompt: str, regex: str) -> Answer:
        """The most likely answer that matches. Raises ModelFault where none comes back."""
        return self._asked(complete, {
            "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0.0, "logprobs": 1,
            "extra_body": {"structured_outputs": {"regex": regex}},
        })  # fmt: skip

    def chat(self, messages: list[Message], schema: dict[str, Any], head: FrontMatter) -> Answer:
        """An answer of this JSON schema. Raises ModelFault where none comes back."""
        config = self._config
        return self._asked(ask, {
            "messages": messages,
            "temperature": config.temperature if head.temperature is None else head.temperature,
            "max_tokens": head.max_tokens or config.max_tokens,
            "logprobs": True,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "changes", "schema": schema},
            },
            "extra_body": dict(config.extra_body),
        })  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._client.close()

    def _asked(self, send: Send, request: dict[str, Any]) -> Answer:
        within_s = self._config.timeout_s

        def call() -> Answer:
            if not self._model:
                self._model = first_model(self._client, within_s)
            if self._config.tenant:  # only vLLM knows vllm_xargs; other endpoints get no tenant
                xargs = own_request(self._config.tenant, within_s, self._token)
                request["extra_body"]["vllm_xargs"] = xargs
            return send(self._client, {"model": self._model, **request}, within_s)

        return self._calls.run(call, within_s + GRACE_S)

"""How many tokens is a prompt, for the model that reads it?

Counted by the endpoint's own tokenizer (vLLM's `/tokenize`), else by that of the
prepared default model, else estimated; `source` says which. Called by `hmas prompts`.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import httpx

from prompts.loader import Message

# A rule of thumb for English text; a tokenizer may differ by a third.
CHARACTERS_PER_TOKEN = 4
LOCAL_MODEL = Path(__file__).parents[1] / "var" / "models" / "smollm2-135m"
_TIMEOUT_S = 10.0


class TokenCountError(RuntimeError):
    """A tokenizer that was asked for and does not answer."""


class TokenCounter(Protocol):
    """Counts tokens.

    Attributes:
        source: who counts, in a few words.
        context_tokens: the longest prompt and reply together, where that is known.
    """

    source: str
    context_tokens: int | None

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""

    def count_messages(self, messages: list[Message]) -> int:
        """Tokens of a chat, with what the model's template adds."""


def token_counter(model_url: str | None = None, folder: Path = LOCAL_MODEL) -> TokenCounter:
    """The best counter there is.

    Args:
        model_url: a vLLM server (`http://HOST:PORT`, with or without `/v1`), if it is to count.
        folder: a model with `tokenizer.json` and `chat_template.jinja`, used if it is there.

    Raises:
        TokenCountError: by the counting, when the server does not answer.
    """
    if model_url:
        return ServedTokenizer(model_url)
    if (folder / "tokenizer.json").is_file():
        try:
            return LocalTokenizer(folder)
        except ImportError:  # the plain installation, without a model's libraries
            pass
    return Estimate()


class Estimate:
    """Counts characters."""

    source = f"an estimate, {CHARACTERS_PER_TOKEN} characters to a token"
    context_tokens: int | None = None

    def count_text(self, text: str) -> int:
        """Rounded up."""
        return -(-len(text) // CHARACTERS_PER_TOKEN)

    def count_messages(self, messages: list[Message]) -> int:
        """Without what a template adds."""
        return sum(self.count_text(message["content"]) for message in messages)


class LocalTokenizer:
    """A tokenizer and chat template on disk, without the seconds that transformers takes.

    Raises:
        ImportError: at construction, without the `tokenizers` library.
    """

    context_tokens: int | None = None

    def __init__(self, folder: Path) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        self.source = f"the tokenizer of {folder.name}"
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        self._template = environment.from_string(template)

    def count_text(self, text: str) -> int:
        """Without special tokens."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def count_messages(self, messages: list[Message]) -> int:
        """As sent to be answered."""
        return self.count_text(self._template.render(messages=messages, add_generation_prompt=True))


class ServedTokenizer:
    """The tokenizer of a vLLM server."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1") + "/tokenize"
        self.source = f"the model at {self._url.removesuffix('/tokenize')}"
        self.context_tokens: int | None = None

    def count_text(self, text: str) -> int:
        """Without special tokens."""
        return self._ask({"prompt": text, "add_special_tokens": False})

    def count_messages(self, messages: list[Message]) -> int:
        """As sent to be answered."""
        return self._ask({"messages": messages, "add_generation_prompt": True})

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=_TIMEOUT_S)

    def _ask(self, body: dict[str, Any]) -> int:
        try:
            reply = self._client.post(self._url, json=body)
            reply.raise_for_status()
            answer = reply.json()
            self.context_tokens = answer.get("max_model_len")
            return int(answer["count"])
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TokenCountError(
                f"--model-url {self._url}: does not count tokens: {error}; "
                "leave the option out to count with the local tokenizer"
            ) from error
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise TokenCountError(f"--model-url {self._url}: is not vLLM's answer") from error

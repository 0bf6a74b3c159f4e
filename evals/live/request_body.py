"""What is sent for a request of a trace? The JSON body of one streaming completion.

Called by the load generator, the calibration and the soak.
"""

import secrets
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from serving.contracts import SLO, TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

TOKEN_IDS = (100, 40_000)
STOP_TOKEN = 0  # no prompt has it
ANSWER_TOKENS = "answer_tokens"  # in vllm_xargs: the length that `AnswerLength` gives an answer

# vllm: with the hook, everything it can use. openai: what SGLang and vLLM without the hook
# take as well; neither has a use for tenants, and each may refuse a priority.
Dialect = Literal["vllm", "openai"]


def completion_body(
    model: str,
    request: TraceRequest,
    token_seed: int,
    index: int,
    *,
    max_tokens: int | None = None,
    dialect: Dialect = "vllm",
    cache_salt: str = "",
) -> dict[str, Any]:
    """A streaming completion that yields exactly `output_tokens` tokens.

    `token_seed` and `index` decide the prompt. `max_tokens` is what the engine is told of the
    answer's length, where the server has `AnswerLength` to end it; None: the true length. Requests
    with different salts share no cached prefix.
    """
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt_ids(request, token_seed, index),
        "max_tokens": max_tokens or request.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        # Usage in every chunk: a chunk may carry several tokens, in vLLM as in SGLang.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    arguments: dict[str, str | float] = {}
    if dialect == "vllm":
        body["priority"] = request.priority
        arguments |= _attributes(request)
    if max_tokens is not None:
        body["stop_token_ids"] = [STOP_TOKEN]
        arguments[ANSWER_TOKENS] = request.output_tokens
    if arguments:
        body["vllm_xargs"] = arguments
    return body | ({"cache_salt": cache_salt} if cache_salt else {})


def _attributes(request: TraceRequest) -> dict[str, str | float]:
    slo = request.slo or SLO()
    targets = {f"slo_{name}": value for name, value in asdict(slo).items()}
    named: dict[str, str | float] = {"tenant": request.tenant, "slo_class": request.slo_class}
    return named | {key: value for key, value in targets.items() if value is not None}


def new_cache_salt() -> str:
    """A salt for one replay: a later one of the same prompts must not find them cached."""
    return secrets.token_hex(8)


def prompt_ids(request: TraceRequest, token_seed: int, index: int) -> list[int]:
    """Random token ids; equal blocks for equal prefix ids, the rest unique to the request."""
    ids: list[int] = []
    for block in request.prefix:
        ids += _drawn(PREFIX_BLOCK_TOKENS, token_seed, 0, block)
    ids += _drawn(max(0, request.prompt_tokens - len(ids)), token_seed, 1, index)
    return ids[: request.prompt_tokens]


def _drawn(count: int, *seed: int) -> list[int]:
    drawn: list[int] = np.random.default_rng(seed).integers(*TOKEN_IDS, count).tolist()
    return drawn

"""How is a trace fitted to a machine and a load? Pure functions on request lists.

A rate is offered requests over the span between the first and the last arrival,
everywhere in the evals.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

Requests = tuple[TraceRequest, ...]


class WorkloadError(ValueError):
    """A workload that cannot be run; says what to do."""


def span_s(requests: Sequence[TraceRequest]) -> float:
    """Seconds between the first and the last arrival; the requests are in order.

    Raises:
        WorkloadError: all requests arrive at the same moment, so no rate is defined.
    """
    span = requests[-1].arrival_s - requests[0].arrival_s if requests else 0.0
    if span <= 0:
        raise WorkloadError(
            f"{len(requests)} requests span 0 s, so they have no rate: take more requests"
        )
    return span


def scale_to_rate(requests: Sequence[TraceRequest], rate_rps: float) -> Requests:
    """Stretch or squeeze time so that the mean rate is `rate_rps`; bursts keep their shape."""
    factor = len(requests) / span_s(requests) / rate_rps
    start_s = requests[0].arrival_s
    return tuple(
        replace(request, arrival_s=(request.arrival_s - start_s) * factor) for request in requests
    )


def thin(requests: Sequence[TraceRequest], keep: float, seed: int) -> Requests:
    """Keep each request with probability `keep`: a lower rate on the trace's own clock."""
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a fraction in (0, 1], got {keep}")
    rng = random.Random(f"{seed}:thin")
    return tuple(request for request in requests if rng.random() < keep)


def scale_lengths(requests: Sequence[TraceRequest], factor: float) -> Requests:
    """Multiply prompt and output lengths; none falls below one token.

    Shared prompt blocks are kept as far as the shorter prompt still holds them.
    """
    return tuple(
        _with_lengths(
            request,
            max(1, round(request.prompt_tokens * factor)),
            max(1, round(request.output_tokens * factor)),
        )
        for request in requests
    )


def clip_lengths(requests: Sequence[TraceRequest], max_model_len: int) -> tuple[Requests, int]:
    """Shorten what cannot fit the model's context; returns the requests and how many changed.

    The output is cut to half the context at most, then the prompt to what is left.
    """
    clipped = []
    changed = 0
    for request in requests:
        output_tokens = min(request.output_tokens, max_model_len // 2)
        prompt_tokens = min(request.prompt_tokens, max_model_len - output_tokens)
        if request.prompt_tokens + request.output_tokens <= max_model_len:
            clipped.append(request)
        else:
            clipped.append(_with_lengths(request, prompt_tokens, output_tokens))
            changed += 1
    return tuple(clipped), changed


def _with_lengths(request: TraceRequest, prompt_tokens: int, output_tokens: int) -> TraceRequest:
    blocks = math.ceil(prompt_tokens / PREFIX_BLOCK_TOKENS)
    return replace(
        request,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prefix=request.prefix[:blocks],
    )

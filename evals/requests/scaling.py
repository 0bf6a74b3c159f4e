"""How is a trace fitted to a machine and a load? Pure functions on request lists.

A rate is offered requests over the span between the first and the last arrival,
everywhere in the evals.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

IntT = TypeVar("IntT", bound=np.integer[Any])
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


def fitting_lengths(
    prompt_tokens: NDArray[IntT], output_tokens: NDArray[IntT], max_model_len: int
) -> tuple[NDArray[IntT], NDArray[IntT]]:
    """Lengths that fit the model's context, each pair together; all shapes are (requests,).

    Where they do not fit, the output is cut to half the context at most, then the prompt to what
    is left.
    """
    too_long = prompt_tokens > max_model_len - output_tokens
    shorter = np.minimum(output_tokens, max_model_len // 2)
    output = np.where(too_long, shorter, output_tokens)
    return np.minimum(prompt_tokens, max_model_len - output), output


def clip_lengths(requests: Sequence[TraceRequest], max_model_len: int) -> tuple[Requests, int]:
    """Shorten what cannot fit the model's context; returns the requests and how many changed."""
    lengths = np.array([(one.prompt_tokens, one.output_tokens) for one in requests], np.int64)
    prompts, outputs = lengths.reshape(-1, 2).T
    fitting = np.stack(fitting_lengths(prompts, outputs, max_model_len), axis=1)
    clipped = list(requests)
    changed = np.flatnonzero((fitting != lengths).any(axis=1)).tolist()
    for row in changed:
        clipped[row] = _with_lengths(clipped[row], *fitting[row].tolist())
    return tuple(clipped), len(changed)


def _with_lengths(request: TraceRequest, prompt_tokens: int, output_tokens: int) -> TraceRequest:
    blocks = math.ceil(prompt_tokens / PREFIX_BLOCK_TOKENS)
    return replace(
        request,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        prefix=request.prefix[:blocks],
    )

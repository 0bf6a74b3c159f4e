"""What does a client of a running server see? An open-loop replay of a workload.

Each request is sent at its own arrival time, whatever became of the others, and
measured at the client: no queue hides in a slow sender. Speaks the OpenAI completions
API to any server; to vLLM with the hook, tenant and SLO class ride in `vllm_xargs`.
Called by the live runner and the demo.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from evals.live.completion_stream import Served, StreamError, stream_completion
from serving.contracts import SLO, Finish, Outcome, TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS
from serving.contracts.settings import EngineSettings
from serving.perception.accounting import judge

TOKEN_IDS = (100, 40_000)

# vllm: with the hook, everything it can use. openai: what SGLang and vLLM without the hook
# take as well; neither has a use for tenants, and each may refuse a priority.
Dialect = Literal["vllm", "openai"]
ReplayEvent = Literal["sent", "left"]
OnEvent = Callable[[ReplayEvent, Outcome | None], None]


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request under way; `to_unix_s` added to a monotonic time gives Unix time."""

    index: int
    request_id: str
    request: TraceRequest
    intended_mono: float
    to_unix_s: float


async def replay(
    base_url: str,
    model: str,
    requests: Sequence[TraceRequest],
    *,
    settings: EngineSettings,
    token_seed: int,
    timeout_s: float,
    drain_s: float | None = None,
    run_id: str = "",
    dialect: Dialect = "vllm",
    on_event: OnEvent = lambda _kind, _outcome: None,
) -> list[Outcome]:
    """Offer a workload to a server and judge each request at the client.

    Args:
        base_url: of the server, without `/v1`.
        model: as the server names it.
        requests: in order of arrival, seconds from the first.
        settings: SLO targets by class.
        token_seed: decides the random prompts.
        timeout_s: longest life of one request; then it is `aborted`.
        drain_s: time after the last arrival; then the rest is `unfinished`. None: no end.
        run_id: put before each request id (`r0`, `r1`, ...), so that ids differ between runs.
        dialect: what the server understands.
        on_event: called with ("sent", None) and ("left", outcome).

    Returns:
        One outcome per request, in order; times are Unix seconds, and latencies count
        from the intended arrival. An HTTP error is an outcome, never an exception.
    """
    start_s, start_mono = time.time(), time.monotonic()
    end_s = None if drain_s is None else requests[-1].arrival_s + drain_s
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    cache_salt = new_cache_salt()
    async with (
        httpx.AsyncClient(base_url=base_url, limits=limits, timeout=None) as client,
        asyncio.TaskGroup() as group,
    ):

        async def one(index: int) -> Outcome:
            request = requests[index]
            intended_mono = start_mono + request.arrival_s
            await asyncio.sleep(intended_mono - time.monotonic())
            on_event("sent", None)
            life_s = timeout_s if end_s is None else min(timeout_s, end_s - request.arrival_s)
            sent = SentRequest(
                index, f"{run_id}r{index}", request, intended_mono, start_s - start_mono
            )
            served = await _serve(
                client,
                completion_body(
                    model, request, token_seed, index, dialect=dialect, cache_salt=cache_salt
                ),
                sent,
                until_mono=intended_mono + life_s,
                late="aborted" if life_s == timeout_s else "unfinished",
            )
            outcome = client_outcome(sent, served, settings)
            on_event("left", outcome)
            return outcome

        tasks = [group.create_task(one(index)) for index in range(len(requests))]
    return [task.result() for task in tasks]


def completion_body(
    model: str,
    request: TraceRequest,
    token_seed: int,
    index: int,
    *,
    dialect: Dialect = "vllm",
    cache_salt: str = "",
) -> dict[str, Any]:
    """The JSON body of a streaming completion that yields exactly `output_tokens` tokens.

    Requests with different salts share no cached prefix; an empty one is not sent.
    """
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt_ids(request, token_seed, index),
        "max_tokens": request.output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        # Usage in every chunk: a chunk may carry several tokens, in vLLM as in SGLang.
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    if dialect == "vllm":
        body |= {
            "min_tokens": request.output_tokens,
            "priority": request.priority,
            "vllm_xargs": _arguments(request),
        }
    return body | ({"cache_salt": cache_salt} if cache_salt else {})


def _arguments(request: TraceRequest) -> dict[str, str | float]:
    slo = request.slo or SLO()
    targets = {"slo_ttft_ms": slo.ttft_ms, "slo_tpot_ms": slo.tpot_ms, "slo_e2e_ms": slo.e2e_ms}
    named: dict[str, str | float] = {"tenant": request.tenant, "slo_class": request.slo_class}
    return named | {key: value for key, value in targets.items() if value is not None}


def new_cache_salt() -> str:
    """A salt for one replay: a later one of the same prompts must not find them cached."""
    return secrets.token_hex(8)


def prompt_ids(request: TraceRequest, token_seed: int, index: int) -> list[int]:
    """Random token ids; equal blocks for equal prefix ids, the rest unique to the request."""
    ids: list[int] = []
    for block in request.prefix:
        ids += _draw(f"{token_seed}:block:{block}", PREFIX_BLOCK_TOKENS)
    ids += _draw(f"{token_seed}:{index}", max(0, request.prompt_tokens - len(ids)))
    return ids[: request.prompt_tokens]


def client_outcome(sent: SentRequest, served: Served, settings: EngineSettings) -> Outcome:
    """The outcome of one request from what its client saw, SLOs judged at the client."""
    request = sent.request
    slo = request.slo or settings.slo_of(request.slo_class) or SLO()
    ttft_s = None if served.first_s is None else served.first_s - sent.intended_mono
    tpot_s = None
    if served.first_s is not None and served.last_s is not None and served.output_tokens > 1:
        tpot_s = (served.last_s - served.first_s) / (served.output_tokens - 1)
    e2e_s = served.end_s - sent.intended_mono
    met, miss = judge(slo, None, ttft_s, tpot_s, e2e_s)
    if served.finish not in ("stop", "length"):
        met, miss = False, miss or "not_served"
    return Outcome(
        seq=sent.index,
        request_id=sent.request_id,
        arrival_s=sent.intended_mono + sent.to_unix_s,
        finished_s=served.end_s + sent.to_unix_s,
        tenant=request.tenant,
        slo_class=request.slo_class,
        slo=slo,
        prompt_tokens=request.prompt_tokens,
        output_tokens=served.output_tokens,
        queue_s=None,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        e2e_s=e2e_s,
        met=met,
        miss=miss,
        finish=served.finish,
        policy="",
        epoch=0,
    )


async def _serve(
    client: httpx.AsyncClient,
    body: dict[str, Any],
    sent: SentRequest,
    *,
    until_mono: float,
    late: Finish,
) -> Served:
    served = Served()
    try:
        async with asyncio.timeout(until_mono - time.monotonic()):
            await stream_completion(client, body, sent.request_id, served)
    except TimeoutError:
        served.finish = late
    except StreamError as error:
        served.finish = error.finish
    served.end_s = time.monotonic()
    return served


def _draw(seed: str, count: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(*TOKEN_IDS) for _ in range(count)]

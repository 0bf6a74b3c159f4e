"""What do clients of a running server see? An open loop, and a closed one.

Open: each request is sent at its own arrival time, whatever became of the others, and measured
at the client: no queue hides in a slow sender. How late requests were sent is in the figures;
TTFT counts from when they were due. Closed: so many requests are always under way.

The clients of a replay have a process of their own: the controller's loop, bars and views share the
caller's, and while they have its interpreter, clients there would send late and take tokens for
late.
"""

import asyncio
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import httpx
import numpy as np

from evals.live.completion_stream import Served, StreamError, stream_completion
from evals.live.request_body import completion_body, new_cache_salt
from evals.live.server import Server
from evals.sim.workers import WorkerError, end_with_parent
from serving.contracts import SLO, Finish, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.offered import longest_answer
from serving.perception.accounting import judge
from serving.policies.base import seconds

OnLeft = Callable[[Outcome], None]
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Replay:
    """What the clients of a replay saw."""

    start_s: float  # when the clock of the requests was 0; Unix time, as in `outcomes`
    # One per request, in order; latencies count from when the request was due.
    outcomes: list[Outcome]
    # Figures for the result: `lateness_s`, send time minus due time; `itl_s`, the gaps between one
    # token and the next, and `longest_gap_s`, the longest of each request; `wrong_lengths`, answers
    # that ended, but not at their length; `lengths_told`, whether the engine knew the lengths.
    client: dict[str, Any]


async def replay(
    server: Server,
    requests: Sequence[TraceRequest],
    *,
    settings: EngineSettings,
    token_seed: int,
    timeout_s: float,
    until_s: float = math.inf,
    run_id: str = "",
    on_left: OnLeft = lambda _outcome: None,
    counts: Callable[[float], bool] = lambda _arrival_s: True,
) -> Replay:
    """Offer a workload to a server and judge each request at the client.

    Every body is there before the first is due: 6 to 7 bytes for each token of the prompts. A
    server with the hook is told tenants, classes and priorities. An HTTP error is an outcome, never
    an exception.

    Args:
        server: who serves.
        requests: in order of arrival, seconds from the start.
        settings: SLO targets by class.
        token_seed: decides the random prompts.
        timeout_s: longest life of one request; then it is `aborted`.
        until_s: seconds from the start; then the rest is `unfinished`.
        run_id: put before each request id (`r0`, `r1`, ...), so that ids differ between runs.
        on_left: called when a request has left.
        counts: whether gaps between tokens of a request that is due then are in the figures.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    bodies = list(islice(bodies_for(server, requests, token_seed), len(requests)))
    async with (
        httpx.AsyncClient(base_url=server.url, limits=limits, timeout=None) as client,
        asyncio.TaskGroup() as group,
    ):
        start_s, start_mono = time.time(), time.monotonic()

        async def one(index: int) -> tuple[Outcome, Served]:
            request, request_id = requests[index], f"{run_id}r{index}"
            due_mono = start_mono + request.arrival_s
            await asyncio.sleep(due_mono - time.monotonic())
            life_s = min(timeout_s, until_s - request.arrival_s)
            served = await _serve(
                client, bodies[index], request_id, until_mono=due_mono + life_s,
                late="aborted" if life_s == timeout_s else "unfinished",
            )  # fmt: skip
            outcome = client_outcome(
                index, request_id, request, served, due_mono=due_mono,
                to_unix_s=start_s - start_mono, settings=settings,
            )  # fmt: skip
            on_left(outcome)
            return outcome, served

        tasks = [group.create_task(one(index)) for index in range(len(requests))]
    seen = [task.result() for task in tasks]
    due_mono = [start_mono + request.arrival_s for request in requests]
    figures = _client_figures(requests, [served for _, served in seen], due_mono, counts)
    outcomes = [outcome for outcome, _ in seen]
    return Replay(start_s, outcomes, figures | {"lengths_told": not server.ends_answers})


async def closed_loop(
    server: Server,
    bodies: Iterator[bytes],
    *,
    concurrency: int,
    seconds: float,
    run_id: str,
    failures_allowed: int = 0,
    on_tick: Callable[[float], None] = lambda _elapsed_s: None,
) -> tuple[list[float], list[str]]:
    """Keep `concurrency` requests under way for `seconds`; what is left then is cancelled.

    Each of so many clients sends its next request when the last is answered. It ends early where
    more requests fail than `failures_allowed`; `on_tick` is told the seconds, twice a second.

    Returns:
        Seconds after the start at which requests were completed, in order, and what failed.
    """
    finished_s: list[float] = []
    failures: list[str] = []
    numbered = enumerate(bodies)
    began_mono = time.monotonic()

    async def client_loop(client: httpx.AsyncClient) -> None:
        for index, body in numbered:
            try:
                await stream_completion(client, body, f"{run_id}c{index}", Served())
                finished_s.append(time.monotonic() - began_mono)
            except StreamError as error:
                failures.append(str(error))
                if len(failures) > failures_allowed:
                    return

    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=None) as client:
        loops = [asyncio.create_task(client_loop(client)) for _ in range(concurrency)]
        try:
            while (elapsed_s := time.monotonic() - began_mono) < seconds:
                on_tick(elapsed_s)
                await asyncio.wait(loops, timeout=min(_TICK_S, seconds - elapsed_s))
                if len(failures) > failures_allowed:
                    break
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
    return finished_s, failures


def bodies_for(
    server: Server, requests: Sequence[TraceRequest], token_seed: int
) -> Iterator[bytes]:
    """Bodies of these requests as `server` understands them, again from the start when used up.

    No turn finds the prompts of another in the prefix cache.
    """
    longest = longest_answer(requests)
    index = 0
    while True:
        salt = new_cache_salt()
        for request in requests:
            body = completion_body(
                server.model, request, token_seed, index, dialect=server.dialect,
                max_tokens=server.told_tokens(request, longest), cache_salt=salt,
            )  # fmt: skip
            yield json.dumps(body).encode()
            index += 1


def client_outcome(
    index: int, request_id: str, request: TraceRequest, served: Served, *, due_mono: float,
    to_unix_s: float, settings: EngineSettings,
) -> Outcome:  # fmt: skip
    """The outcome of one request from what its client saw, SLOs judged at the client.

    `to_unix_s` added to a monotonic time, such as `due_mono`, gives Unix time.
    """
    slo = request.slo or settings.slo_of(request.slo_class) or SLO()
    ttft_s = None if served.first_s is None else served.first_s - due_mono
    tpot_s = None
    if served.first_s is not None and served.last_s is not None and served.output_tokens > 1:
        tpot_s = (served.last_s - served.first_s) / (served.output_tokens - 1)
    e2e_s = served.end_s - due_mono
    late_gaps = sum(gap_s > seconds(slo.itl_ms) for gap_s in served.gaps_s)
    met, miss = judge(slo, None, ttft_s, tpot_s, e2e_s, late_gaps, len(served.gaps_s))
    if served.finish not in ("stop", "length"):
        met, miss = False, miss or "not_served"
    return Outcome(
        index, request_id, due_mono + to_unix_s, served.end_s + to_unix_s, request.tenant,
        request.slo_class, slo, request.prompt_tokens, served.output_tokens, queue_s=None,
        ttft_s=ttft_s, tpot_s=tpot_s, e2e_s=e2e_s, met=met, miss=miss, finish=served.finish,
        policy="", epoch=0, late_gaps=late_gaps,
    )  # fmt: skip


async def _serve(
    client: httpx.AsyncClient, body: bytes, request_id: str, *, until_mono: float, late: Finish
) -> Served:
    served = Served()
    try:
        async with asyncio.timeout(until_mono - time.monotonic()):
            await stream_completion(client, body, request_id, served)
    except TimeoutError:
        served.finish = late
    except StreamError as error:
        served.finish = error.finish
    served.end_s = time.monotonic()
    return served


def _client_figures(
    requests: Sequence[TraceRequest], seen: Sequence[Served], due_mono: Sequence[float],
    counts: Callable[[float], bool],
) -> dict[str, Any]:  # fmt: skip
    gaps_s = [
        served.gaps_s
        for request, served in zip(requests, seen, strict=True)
        if counts(request.arrival_s) and served.gaps_s
    ]
    late_s = [
        served.sent_s - due
        for served, due in zip(seen, due_mono, strict=True)
        if served.sent_s is not None
    ]
    return {
        "lateness_s": _spread(late_s),
        "itl_s": _spread([gap_s for each in gaps_s for gap_s in each]),
        "longest_gap_s": _spread([max(each) for each in gaps_s]),
        "wrong_lengths": sum(
            served.finish in ("stop", "length") and served.output_tokens != request.output_tokens
            for request, served in zip(requests, seen, strict=True)
        ),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return dict.fromkeys(("p50", "p99", "max"))
    p50, p99 = np.percentile(seconds, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": max(seconds)}


Playing = partial[Coroutine[Any, Any, Replay]]


def played_apart(playing: Playing, on_left: OnLeft) -> Replay:
    """Run a replay in a process of its own, which ends with this call whatever happens.

    `playing` is `replay` with all that it takes but `on_left`, which is called here: however long
    it takes, clients do not wait for it.

    Raises:
        WorkerError: the process ended before the replay did; standard error has its traceback.
    """
    context = multiprocessing.get_context("spawn")  # not forked: this process has threads
    ours, theirs = context.Pipe(duplex=False)
    clients = context.Process(target=_play, args=(playing, theirs), daemon=True)
    clients.start()
    theirs.close()  # else the end of the process would not be the end of the pipe
    try:
        while not isinstance(told := ours.recv(), Replay):
            on_left(told)
        return told
    except EOFError as error:
        clients.join()
        raise WorkerError(
            f"the process of the clients ended early, with exit code {clients.exitcode}: "
            "is there enough memory?"
        ) from error
    finally:
        clients.terminate()
        clients.join()
        ours.close()


def _play(playing: Playing, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with suppress(PermissionError):  # real clients do not wait for the server's machine
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    threading.Thread(target=end_with_parent, daemon=True).start()
    with ThreadPoolExecutor(1) as teller:  # a full pipe holds up this thread, not the clients
        played = asyncio.run(playing(on_left=lambda each: teller.submit(pipe.send, each)))
        teller.submit(pipe.send, played).result()

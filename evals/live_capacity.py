"""How many requests per second can a running server complete? The live unit of `load`.

Closed loop: a fixed number of clients, each sending its next request when the last one
is answered, for some seconds; completions of the middle part count.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from evals.completion_stream import Served, StreamError, stream_completion
from evals.load_generator import completion_body, new_cache_salt
from serving.contracts import TraceRequest

CONCURRENCY = 16


class CapacityError(RuntimeError):
    """The server's capacity could not be measured; says why and what to do."""


async def measure_capacity(
    base_url: str,
    model: str,
    requests: Sequence[TraceRequest],
    *,
    seconds: float,
    token_seed: int,
    concurrency: int = CONCURRENCY,
    run_id: str = "",
    on_finished: Callable[[int], None] = lambda _finished: None,
) -> float:
    """Requests per second that the server completes at `concurrency`.

    Requests are taken in order, again from the start when used up, arrival times
    ignored. The rate is that of completions in the middle part, from 20% to 100% of
    `seconds`; what is in flight at the end is cancelled.

    Raises:
        CapacityError: the server refused everything, or is too slow for `seconds`.
    """
    finished_s: list[float] = []
    failures: list[str] = []
    position = iter(range(10**9))
    cache_salt = new_cache_salt()

    async def client_loop(client: httpx.AsyncClient) -> None:
        while len(failures) <= len(finished_s) + concurrency:
            index = next(position)
            request = requests[index % len(requests)]
            body = completion_body(model, request, token_seed, index, cache_salt=cache_salt)
            try:
                await stream_completion(client, body, f"{run_id}c{index}", Served())
            except StreamError as error:
                failures.append(str(error))
                continue
            finished_s.append(time.monotonic())
            on_finished(len(finished_s))

    start_s = time.monotonic()
    async with httpx.AsyncClient(
        base_url=base_url,
        limits=httpx.Limits(max_connections=concurrency),
        timeout=None,
    ) as client:
        loops = [asyncio.create_task(client_loop(client)) for _ in range(concurrency)]
        try:
            await asyncio.wait(loops, timeout=seconds)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
    return middle_rate_rps(finished_s, start_s, seconds, failures)


def middle_rate_rps(
    finished_s: Sequence[float], start_s: float, seconds: float, failures: Sequence[str] = ()
) -> float:
    """Completions per second from 20% of the time to the end.

    Raises:
        CapacityError: fewer than ten completions there.
    """
    from_s, to_s = start_s + 0.2 * seconds, start_s + seconds
    counted = sum(from_s <= moment <= to_s for moment in finished_s)
    if counted < 10:
        because = f"; {len(failures)} failed, the last with {failures[-1]}" if failures else ""
        raise CapacityError(
            f"only {counted} requests were completed in {seconds:g} s{because}: "
            "measure longer or shorten the requests"
        )
    return counted / (to_s - from_s)

"""How many requests per second can a running server complete? The live unit of `load`.

Closed loop: as many clients as the engine has slots, each sending its next request when the
last one is answered. Counted is what follows once the first generation, which began all at
once, is through.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from evals.live.completion_stream import Served, StreamError, stream_completion
from evals.live.load_generator import completion_body, new_cache_salt
from evals.requests.scenario import LEAST_COMPLETIONS
from serving.contracts import Snapshot, TraceRequest
from serving.engines.ranks import rank_count

SETTLE_LIMIT_S = 120.0
_LOOK_S = 0.05


class CapacityError(RuntimeError):
    """The server's capacity could not be measured; says why and what to do."""


def clients_for(snapshot: Snapshot) -> int:
    """One client for each slot of every rank: with fewer, load 1 would not fill the engine."""
    return snapshot.envelope.max_active_requests * rank_count(snapshot)


async def measure_capacity(
    base_url: str,
    model: str,
    requests: Sequence[TraceRequest],
    *,
    seconds: float,
    token_seed: int,
    concurrency: int,
    run_id: str = "",
    on_finished: Callable[[int], None] = lambda _finished: None,
) -> float:
    """Requests per second that the server completes at `concurrency`.

    Requests are taken in order, again from the start when used up, arrival times ignored.
    Counting begins when as many are answered as there are clients, and goes on for `seconds`
    or, if that took longer, as long again: at least one more generation. What is in flight at
    the end is cancelled.

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
            turn = f"{cache_salt}-{index // len(requests)}"  # no turn finds another's prompts
            body = completion_body(model, request, token_seed, index, cache_salt=turn)
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
            while (
                len(finished_s) < concurrency
                and time.monotonic() < start_s + SETTLE_LIMIT_S
                and not all(loop.done() for loop in loops)
            ):
                await asyncio.sleep(_LOOK_S)
            from_s = time.monotonic()
            await asyncio.wait(loops, timeout=max(seconds, from_s - start_s))
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
    return rate_rps(finished_s, from_s, time.monotonic(), failures)


def rate_rps(
    finished_s: Sequence[float], from_s: float, to_s: float, failures: Sequence[str] = ()
) -> float:
    """Completions per second from `from_s` to `to_s`.

    Raises:
        CapacityError: fewer than LEAST_COMPLETIONS.
    """
    counted = sum(from_s <= moment <= to_s for moment in finished_s)
    if counted < LEAST_COMPLETIONS:
        because = f"; {len(failures)} failed, the last with {failures[-1]}" if failures else ""
        raise CapacityError(
            f"only {counted} requests were completed in {to_s - from_s:.0f} s{because}: "
            "measure longer or shorten the requests"
        )
    return counted / (to_s - from_s)

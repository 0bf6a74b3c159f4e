"""How many requests per second can a running server complete? The live unit of `load`.

Closed loop: as many clients as the engine has slots, so it is full without a growing queue. What
is completed in the second half of the time counts: by then the requests that all began at once
are through.
"""

import asyncio
from collections.abc import Sequence

from evals.live.load_generator import bodies_for, closed_loop
from evals.live.server import Server
from evals.progress import CaseProgress
from evals.requests.offer import Workload
from evals.requests.scenario import LEAST_COMPLETIONS
from serving.engines.ranks import rank_count


class CapacityError(RuntimeError):
    """The server's capacity could not be measured; says why and what to do."""


def capacity_rps(
    server: Server, workload: Workload, seconds: float, progress: CaseProgress
) -> float:
    """Requests per second that a server with the hook completes when all its slots are taken.

    Requests are taken in order, again from the start when used up, arrival times ignored; with a
    bar of seconds.

    Raises:
        CapacityError: the server refused everything, or is too slow for `seconds`.
    """
    if server.engine is None:
        raise CapacityError(f"{server.url}: how many slots it has is only known with the hook")
    snapshot = server.engine.snapshot()
    concurrency = snapshot.envelope.max_active_requests * rank_count(snapshot)
    bar = progress.add(f"{workload.scenario} capacity (seconds)", round(seconds))
    finished_s, failures = asyncio.run(closed_loop(
        server, bodies_for(server, workload.requests, workload.seed), concurrency=concurrency,
        seconds=seconds, run_id="capacity-", failures_allowed=concurrency,
        on_tick=lambda elapsed_s: progress.update(bar, int(elapsed_s)),
    ))  # fmt: skip
    found_rps = rate_rps(finished_s, seconds / 2, seconds, failures)
    progress.done(bar, f"{workload.scenario}: capacity {found_rps:.2f} requests/s (closed loop)")
    return found_rps


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

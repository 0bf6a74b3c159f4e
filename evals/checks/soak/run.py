"""How does a soak go? Clients and decisions side by side, then rest, then the books.

On a server that runs: `hmas soak` starts one for it.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import psutil

from evals.arms.steering import ArmError
from evals.checks.soak.books import check_books
from evals.checks.soak.clients import Clients
from evals.checks.soak.report import Memory, SoakReport, read_complaints
from evals.checks.soak.steering import Steering
from evals.live.own_server import OwnServer
from evals.live.server import Server, Totals, engine_totals, exported_totals, wait_until_at_rest
from evals.progress import CaseProgress
from serving.engines.live import LiveEngine, read_token
from serving.engines.protocol import EngineUnavailable

REST_S = 300.0  # longest time that what is inside at the end may take
_WARM_UP_SHARE, _WARM_UP_S = 0.2, 120.0
_METRICS_LOOKS = 10


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """How long, how much, and by which seed."""

    minutes: float
    rate_rps: float
    seed: int


def soak_on(
    server: OwnServer, options: SoakOptions, progress: CaseProgress, adapters: Sequence[str] = ()
) -> SoakReport:
    """Soak a running server that has no controller and no other clients.

    Raises:
        ArmError, EngineUnavailable: it could not begin.
    """
    token = read_token(server.token_file)
    engine = LiveEngine(server.url, token)
    live = Server(server.url, server.model, engine)
    wait_until_at_rest(live)
    before = engine.snapshot()
    if before.controller_id:
        raise ArmError(f"controller {before.controller_id!r} owns the engine: stop it first")
    steering = Steering(
        server.url, token, core_pids(server.pid), seed=options.seed, snapshot=before
    )
    clients = Clients(
        server.url, server.model, before.envelope.max_model_len, seed=options.seed,
        rate_rps=options.rate_rps, adapters=adapters,
    )  # fmt: skip
    log_from = server.log.stat().st_size
    steering.follow()
    began_s = time.monotonic()
    steering.start()
    try:
        asyncio.run(_soak(clients, steering, options.minutes * 60, progress))
    finally:
        steering.stop()
    broken = steering.broken
    after = before
    try:
        wait_until_at_rest(live, REST_S)
        after = engine.snapshot()
        steering.follow()
        broken.update(_metrics_that_differ(server.url, engine_totals(after.counters)))
    except (EngineUnavailable, ArmError, psutil.Error) as error:
        broken[f"after the last request: {error}"] += 1
    finally:
        steering.close()
        engine.close()
    errors, warnings = read_complaints(server.log, log_from)
    return SoakReport(
        seconds=round(time.monotonic() - began_s, 1),
        seed=options.seed,
        books=check_books(
            clients.visits, clients.sent, steering.journal, clients.index_of, before.counters,
            after.counters,
        ),
        memory_mib=_memory(steering.memory),
        errors=errors,
        warnings=warnings,
        policy_faults=after.policy_errors - before.policy_errors,
        last_fault=after.last_error if after.policy_errors > before.policy_errors else "",
        answers={name: dict(steering.answers[name]) for name in sorted(steering.answers)},
        broken=[f"{times} x {what}" if times > 1 else what for what, times in broken.items()],
        longest_without_token_s=round(clients.clock.longest_s, 2),
        most_waiting=steering.most_waiting,
        preemptions=after.kv.preemptions - before.kv.preemptions,
    )  # fmt: skip


def _metrics_that_differ(url: str, engine: Totals) -> list[str]:
    """What /metrics, from however many API servers, goes on to say otherwise than the engine."""
    told: list[str] = []
    for _ in range(_METRICS_LOOKS):  # they follow the engine once a second, a busy machine later
        told = [
            f"/metrics says {counted.total()} {name}, the engine {engine[name].total()}"
            for name, counted in exported_totals(url).items()
            if counted.total() != engine[name].total()
        ]
        if not told:
            break
    return told


def core_pids(server_pid: int) -> list[int]:
    """Engine core processes of a server, by the title that vLLM gives them.

    Raises:
        ArmError: there is none.
    """
    children = psutil.Process(server_pid).children(recursive=True)
    found = [
        child.pid
        for child in children
        if "EngineCore" in child.name() or any("EngineCore" in word for word in child.cmdline())
    ]
    if not found:
        names = ", ".join(child.name() for child in children)
        raise ArmError(f"no EngineCore process under process {server_pid}, only: {names}")
    return found


async def _soak(
    clients: Clients, steering: Steering, seconds: float, progress: CaseProgress
) -> None:
    bar = progress.add("soak", round(seconds))

    async def tick() -> None:
        for elapsed_s in count():
            calls = sum(counts.total() for counts in list(steering.answers.values()))
            ends = ", ".join(f"{number} {end}" for end, number in clients.ends().items())
            line = f"{elapsed_s} s: sent {clients.sent}: {ends}; {calls} calls"
            progress.update(bar, elapsed_s, line)
            await asyncio.sleep(1.0)

    ticking = asyncio.create_task(tick())
    try:
        await clients.send_for(seconds, lambda: steering.gone)
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


def _memory(samples: Sequence[tuple[float, float]]) -> Memory:
    """Start, after warm-up, most and end."""
    warm_s = min(_WARM_UP_S, _WARM_UP_SHARE * samples[-1][0])
    warm = next(size for at_s, size in samples if at_s >= warm_s)
    sizes = [size for _, size in samples]
    return Memory(sizes[0], warm, max(sizes), sizes[-1])

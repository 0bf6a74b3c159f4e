"""How is a suite run on real servers? Capacity first, then in rounds one arm after the other.

Arms of the suite run on a vLLM with the hook, whose default policy is what `vllm-fcfs` means;
every further server is an arm of its own, by the name that `--server` gave it. Each seed is a
round with requests of its own. Figures are measured at the client.

Capacity is measured in a closed loop: as many clients as the engine has slots, so it is full
without a growing queue. What is completed in the second half of the time counts: by then the
requests that all began at once are through.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from evals.live.arm import steered
from evals.live.load_generator import Replay, bodies_for, closed_loop, played_apart, replay
from evals.live.server import Server, check_lengths, wait_until_at_rest
from evals.progress import CaseProgress
from evals.requests.offer import Offered, Workload, offer
from evals.requests.scenario import LEAST_COMPLETIONS
from evals.result.metrics import CaseRun, Result, summarise
from evals.result.recording import RecordedEngine
from evals.result.run_result import SuiteRun, versions
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.suite import Suite
from serving.contracts import Outcome
from serving.engines.ranks import rank_count

LATE_S = 0.1  # of a request's sending, from where on a reader must be warned


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


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One suite, and on what it runs."""

    suite: Suite  # its arms run on `server`
    server: Server  # with the hook; capacity is measured on it
    progress: CaseProgress  # gets a bar for each case
    plain: Sequence[Server] = ()  # further servers without the hook
    # For the arms with a control loop.
    controller: ControllerOptions = ControllerOptions()  # noqa: RUF009  frozen
    capacity_s: float = 60.0  # length of the capacity measurement
    timeout_s: float = 300.0  # longest life of one request
    ledger_dir: Path | None = None  # gets the decision ledgers; None records none

    @property
    def servers(self) -> dict[str, Server]:
        """By arm, in order."""
        named = {server.name: server for server in self.plain}
        return dict.fromkeys(self.suite.arms, self.server) | named


@dataclass(frozen=True, slots=True)
class Played:
    """One arm on one workload at one load: what was offered, and what came of it."""

    workload: Workload
    load: float
    arm: str
    offered: Offered
    run: CaseRun
    result: Result


def run_live_suite(
    live: LiveRun, workloads: Sequence[Workload], known_rps: Mapping[str, float] | None = None
) -> SuiteRun:
    """Run seeds x scenarios x loads x arms; results in this order.

    Raises:
        ArmError, CapacityError, WorkerError: as `play`.
    """
    played, arms = list(play(live, workloads, known_rps)), list(live.servers)
    for begin in range(0, len(played), len(arms)):  # of one round, in the order of the suite
        played[begin : begin + len(arms)] = sorted(
            played[begin : begin + len(arms)], key=lambda one: arms.index(one.arm)
        )
    return SuiteRun(
        live.suite.name, live.suite.every_seed[0], versions(), [one.result for one in played],
        [one.run for one in played],
    )  # fmt: skip


def play(
    live: LiveRun, workloads: Sequence[Workload], known_rps: Mapping[str, float] | None = None
) -> Iterator[Played]:
    """Serve one case after the other: seeds x scenarios x loads x arms.

    Arms take turns at going first, so that what a shared machine does over time falls on none of
    them alone. Capacity is measured once for each scenario of which it is not known.

    Raises:
        ArmError: the engine is owned by another controller or refuses; a server does not
            answer or does not come to rest, or takes no requests as long as these.
        CapacityError: capacity could not be measured.
        WorkerError: the process of the clients ended early.
    """
    for server in live.plain:
        for workload in workloads:
            check_lengths(server, workload.requests)
    capacities_rps = dict(known_rps or {})
    turns = count()
    for workload in sorted(workloads, key=lambda one: live.suite.every_seed.index(one.seed)):
        scenario = workload.scenario
        if scenario not in capacities_rps:
            _wait_until_all_rest(live)
            capacities_rps[scenario] = capacity_rps(
                live.server, workload, live.capacity_s, live.progress
            )
        for load in live.suite.loads:
            for arm in in_turn(list(live.servers), next(turns)):
                _wait_until_all_rest(live)
                yield _play_case(live, arm, workload, load, capacities_rps[scenario])


def in_turn(arms: Sequence[str], turn: int) -> list[str]:
    """The arms in order, begun `turn` places later and round again."""
    first = turn % len(arms)
    return [*arms[first:], *arms[:first]]


def _wait_until_all_rest(live: LiveRun) -> None:
    """Wait for every server: they may share a machine, and the next one shall have it alone."""
    for server in (live.server, *live.plain):
        wait_until_at_rest(server)


def _play_case(live: LiveRun, arm: str, workload: Workload, load: float, most_rps: float) -> Played:
    offered, span = offer(workload, load * most_rps), workload.span
    server = live.servers[arm]
    run, replayed = _serve(live, server, arm, workload, load, offered)
    result = summarise(
        run, span.counted_until_s, warmup_s=span.warmup_s, moments_s=offered.moments_s,
        start_s=replayed.start_s, contract=live.suite.settings.contract,
    )  # fmt: skip
    result |= {
        "seed": workload.seed, "trace": workload.provenance, "engine": server.description,
        **replayed.client, "half": workload.half, "capacity_rps": most_rps,
        "load_counted": offered.counted_rps / most_rps,
    }  # fmt: skip
    if server.engine is None:  # clients cannot see what it preempted; 0 would say that it did not
        result |= {"preemptions": None, "recomputed_tokens": None}
    return Played(workload, load, arm, offered, run, result)


def _serve(
    live: LiveRun, server: Server, arm: str, workload: Workload, load: float, offered: Offered
) -> tuple[CaseRun, Replay]:
    """What clients saw of one arm, with a bar, and what the arm did."""
    progress, scenario = live.progress, workload.scenario
    engine = None if server.engine is None else RecordedEngine(server.engine)
    title = f"{scenario} {load:g}x {arm} seed {workload.seed}"
    bar, met = progress.add(title, len(offered.requests)), Counter[bool]()

    def on_left(outcome: Outcome) -> None:
        met[outcome.met] += 1
        policy = f", {engine.decisions[-1].policy}" if engine and engine.decisions else ""
        progress.update(bar, met.total(), f"{title}: {met[True]} met their SLOs{policy}")

    name = arm if engine is None else parse_arm(arm).id_text
    playing = partial(
        replay, replace(server, engine=None), offered.requests, settings=live.suite.settings,
        token_seed=workload.seed, timeout_s=live.timeout_s, until_s=workload.span.until_s,
        run_id=f"{scenario}-{load:g}-{name}-", counts=workload.span.counts,
    )  # fmt: skip
    if engine is None:
        played = played_apart(playing, on_left)
        run = CaseRun(scenario, load, arm, played.outcomes, ())
    else:
        controller, before = live.controller, engine.snapshot().kv
        if live.ledger_dir is not None:
            path = live.ledger_dir / f"ledger-{scenario}-{load:g}x.sqlite"
            controller = replace(controller, ledger_path=path)
        overrides, label = {"engine.url": server.url}, f"{scenario} {load:g}x {arm} live"
        with steered(parse_arm(arm), engine, controller, overrides, label):
            played = played_apart(playing, on_left)
        wait_until_at_rest(server)  # which may be too busy to answer before
        after = engine.snapshot().kv
        run = CaseRun(
            scenario, load, arm, played.outcomes, engine.decisions,
            preemptions=after.preemptions - before.preemptions,
            recomputed_tokens=after.recomputed_tokens - before.recomputed_tokens,
        )  # fmt: skip
    progress.done(bar, f"{title}: {met[True]} of {met.total()} met their SLOs")
    late_s = played.client["lateness_s"]["p99"]
    if late_s is not None and late_s > LATE_S:
        progress.warn(
            f"{title}: 1 in 100 requests was sent {late_s:.2f} s late or later: the clients "
            "had no CPU for it; that is part of its TTFT"
        )
    return run, played

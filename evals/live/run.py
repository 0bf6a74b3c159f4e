"""How is a suite run on real servers? Capacity first, then in rounds one arm after the other.

Arms of the suite run on a vLLM with the hook, whose default policy is what `vllm-fcfs` means;
every further server is an arm of its own, by the name that `--server` gave it. Each seed is a
round with requests of its own. Figures are measured at the client.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

from evals.live.arm import steered
from evals.live.capacity import measure_capacity
from evals.live.clients import played_apart
from evals.live.load_generator import Replay, replay
from evals.live.server import Server, check_lengths, wait_until_at_rest
from evals.progress import CaseProgress
from evals.requests.offer import Workload, offer
from evals.result.metrics import CaseRun, Result, summarise
from evals.result.recording import RecordedEngine
from evals.result.run_result import SuiteRun, versions
from evals.suite.arms import ControllerOptions, parse_arm
from evals.suite.span import Span
from evals.suite.suite import Suite
from serving.contracts import Outcome, TraceRequest
from serving.contracts.settings import EngineSettings

LATE_S = 0.1  # of a request's sending, from where on a reader must be warned


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How to run on the servers.

    Attributes:
        controller: for the arms with a control loop.
        capacity_s: length of the capacity measurement.
        timeout_s: longest life of one request.
        ledger_dir: gets the decision ledgers; None records none.
    """

    controller: ControllerOptions
    capacity_s: float = 60.0
    timeout_s: float = 300.0
    ledger_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class LiveCase:
    """One arm on one workload at one load.

    `engine` records what an arm with the hook decides; `span` is how long the case is, and what
    of it counts.
    """

    scenario: str
    load: float
    arm: str
    requests: Sequence[TraceRequest]
    settings: EngineSettings
    span: Span
    engine: RecordedEngine | None = None

    @property
    def title(self) -> str:
        """For bars and ledgers."""
        return f"{self.scenario} {self.load:g}x {self.arm}"


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One suite, and on what it runs.

    Attributes:
        suite: its arms run on `server`.
        server: with the hook; capacity is measured on it.
        plain: further servers without it.
        options: how to run on the servers.
        progress: gets a bar for each case.
    """

    suite: Suite
    server: Server
    plain: Sequence[Server]
    options: LiveOptions
    progress: CaseProgress


def run_live_suite(live: LiveRun, workloads: Sequence[Workload]) -> SuiteRun:
    """Run seeds x scenarios x loads x arms.

    Arms take turns at going first, so that what a shared machine does over time falls on none of
    them alone. Capacity is measured once for each scenario.

    Raises:
        ArmError: the engine is owned by another controller or refuses; a server does not
            answer or does not come to rest, or takes no requests as long as these.
        CapacityError: capacity could not be measured.
    """
    for server in live.plain:
        for workload in workloads:
            check_lengths(server, workload.requests)
    servers = dict.fromkeys(live.suite.arms, live.server) | {one.name: one for one in live.plain}
    capacities_rps: dict[str, float] = {}
    done: list[tuple[CaseRun, Result]] = []
    turns = count()
    for workload in sorted(workloads, key=lambda one: live.suite.every_seed.index(one.seed)):
        scenario = workload.scenario
        if scenario not in capacities_rps:
            _wait_until_all_rest(live)
            capacities_rps[scenario] = capacity_rps(
                live.server, workload, seconds=live.options.capacity_s, progress=live.progress
            )
        for load in live.suite.loads:
            rate_rps = load * capacities_rps[scenario]
            by_arm = {}
            for arm in in_turn(list(servers), next(turns)):
                _wait_until_all_rest(live)
                by_arm[arm] = _run_arm(live, servers[arm], arm, workload, load, rate_rps)
                by_arm[arm][1]["capacity_rps"] = capacities_rps[scenario]
            done += [by_arm[arm] for arm in servers]
    return SuiteRun(
        live.suite.name, live.suite.every_seed[0], versions(),
        [result for _, result in done], [run for run, _ in done],
    )  # fmt: skip


def in_turn(arms: Sequence[str], turn: int) -> list[str]:
    """The arms in order, begun `turn` places later and round again."""
    first = turn % len(arms)
    return [*arms[first:], *arms[:first]]


def capacity_rps(
    server: Server, workload: Workload, *, seconds: float, progress: CaseProgress
) -> float:
    """Requests per second that the server completes of a scenario's, with a bar of seconds.

    Raises:
        CapacityError: it could not be measured.
    """
    bar = progress.add(f"{workload.scenario} capacity (seconds)", round(seconds))
    rate_rps = measure_capacity(
        server, workload.requests, seconds=seconds, token_seed=workload.seed,
        on_tick=lambda elapsed_s: progress.update(bar, int(elapsed_s)),
    )  # fmt: skip
    progress.done(bar, f"{workload.scenario}: capacity {rate_rps:.2f} requests/s (closed loop)")
    return rate_rps


def run_case(
    case: LiveCase, server: Server, *, seed: int, options: LiveOptions, progress: CaseProgress
) -> tuple[CaseRun, Replay]:
    """Serve one arm's requests, with a bar; what its clients saw, and what the arm did.

    Raises:
        ArmError: the engine is owned by another controller, refuses, or does not come to rest.
        WorkerError: the process of the clients ended early.
    """
    wait_until_at_rest(server)
    title, engine = f"{case.title} seed {seed}", case.engine
    bar, met = progress.add(title, len(case.requests)), Counter[bool]()

    def on_left(outcome: Outcome) -> None:
        met[outcome.met] += 1
        policy = f", {engine.decisions[-1].policy}" if engine and engine.decisions else ""
        progress.update(bar, met.total(), f"{title}: {met[True]} met their SLOs{policy}")

    arm = None if engine is None else parse_arm(case.arm)
    name = case.arm if arm is None else arm.id_text
    playing = partial(
        replay, replace(server, engine=None), case.requests, settings=case.settings,
        token_seed=seed, timeout_s=options.timeout_s, until_s=case.span.until_s,
        run_id=f"{case.scenario}-{case.load:g}-{name}-", counts=case.span.counts,
    )  # fmt: skip
    if engine is None or arm is None:
        played = played_apart(playing, on_left)
        run = CaseRun(case.scenario, case.load, case.arm, played.outcomes, ())
    else:
        before = engine.snapshot().kv
        overrides, label = {"engine.url": server.url}, f"{case.title} live"
        with steered(arm, engine, options.controller, overrides, run_label=label):
            played = played_apart(playing, on_left)
        after = engine.snapshot().kv
        run = CaseRun(
            case.scenario, case.load, case.arm, played.outcomes, engine.decisions,
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


def _wait_until_all_rest(live: LiveRun) -> None:
    """Wait for every server: they may share a machine, and the next one shall have it alone."""
    for server in (live.server, *live.plain):
        wait_until_at_rest(server)


def _run_arm(
    live: LiveRun, server: Server, arm: str, workload: Workload, load: float, rate_rps: float
) -> tuple[CaseRun, Result]:
    offered = offer(workload, rate_rps)
    suite, options = live.suite, live.options
    engine = None if server.engine is None else RecordedEngine(server.engine)
    case = LiveCase(
        workload.scenario, load, arm, offered.requests, suite.settings, workload.span, engine,
    )  # fmt: skip
    if options.ledger_dir is not None:
        path = options.ledger_dir / f"ledger-{case.scenario}-{load:g}x.sqlite"
        options = replace(options, controller=replace(options.controller, ledger_path=path))
    run, played = run_case(
        case, server, seed=workload.seed, options=options, progress=live.progress
    )
    result = summarise(
        run, case.span.counted_until_s, warmup_s=case.span.warmup_s,
        moments_s=offered.moments_s, start_s=played.start_s, contract=suite.settings.contract,
    )  # fmt: skip
    result |= {
        "seed": workload.seed, "trace": workload.provenance, "engine": server.description,
        **played.client, "half": workload.half,
        "load_counted": offered.counted_rps / rate_rps * load,
    }  # fmt: skip
    if engine is None:  # clients cannot see what it preempted; 0 would say that it never did
        result |= {"preemptions": None, "recomputed_tokens": None}
    return run, result

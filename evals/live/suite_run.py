"""How is a suite run on real servers? Capacity first, then the arms one after the other.

Arms of the suite run on a vLLM with the hook; every further server is an arm of its own, by
the name that `--server` gave it. Called by `hmas eval run --engine live` and `--serve`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count

from evals.live.load_generator import OnEvent, replay
from evals.live.plain_server import PlainServer, check_lengths, wait_until_at_rest
from evals.live.run import (
    LiveCase,
    LiveOptions,
    LiveServer,
    measured_capacity_rps,
    run_case,
    wait_until_idle,
)
from evals.progress import CaseProgress
from evals.requests.offer import Offered, offer
from evals.requests.scaling import span_s
from evals.requests.scenario import Workload
from evals.result.metrics import CaseRun, Result, summarise
from evals.result.recording import RecordedEngine
from evals.result.run_result import SuiteRun, versions
from evals.suite.arms import parse_arm
from evals.suite.suite import Suite
from serving.contracts import Outcome


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One suite, and on what it runs.

    Attributes:
        suite: its arms run on `server`.
        server: with the hook; capacity is measured on it.
        plain: further servers without it.
        seed: of the prompts.
        options: how to run on the servers.
        progress: gets a bar for each case.
    """

    suite: Suite
    server: LiveServer
    plain: Sequence[PlainServer]
    seed: int
    options: LiveOptions
    progress: CaseProgress

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, in the order of the results."""
        return (*self.suite.arms, *(each.name for each in self.plain))


def run_live_suite(live: LiveRun, workloads: Sequence[Workload]) -> SuiteRun:
    """Run scenarios x loads x arms.

    Arms take turns at going first: with three arms at three loads each is first, second and
    last once, so that what a shared machine does over time falls on none of them alone.

    Raises:
        ArmError: the engine is owned by another controller or refuses; a server does not
            answer or does not come to rest, or takes no requests as long as these.
        CapacityError: capacity could not be measured.
    """
    for server in live.plain:
        for workload in workloads:
            check_lengths(server, workload.requests)
    results: list[Result] = []
    runs: list[CaseRun] = []
    turns = count()
    for workload in workloads:
        _wait_until_all_rest(live)
        capacity_rps = measured_capacity_rps(
            live.server, workload, seconds=live.options.capacity_s, seed=live.seed,
            progress=live.progress,
        )  # fmt: skip
        for load in live.suite.loads:
            offered = offer(workload, load * capacity_rps)
            by_arm: dict[str, CaseRun] = {}
            for arm in in_turn(live.arms, next(turns)):
                _wait_until_all_rest(live)
                by_arm[arm] = _run_arm(live, arm, workload.scenario, load, offered)
            for arm in live.arms:
                runs.append(by_arm[arm])
                results.append(
                    _result(live, by_arm[arm], offered)
                    | {"trace": workload.provenance, "capacity_rps": capacity_rps}
                )
    return SuiteRun(live.suite.name, live.seed, versions(), results, runs)


def in_turn(arms: Sequence[str], turn: int) -> list[str]:
    """The arms in order, begun `turn` places later and round again."""
    first = turn % len(arms)
    return [*arms[first:], *arms[:first]]


def _wait_until_all_rest(live: LiveRun) -> None:
    """Wait for every server: they may share a machine, and the next one shall have it alone."""
    wait_until_idle(live.server.engine)
    for server in live.plain:
        wait_until_at_rest(server)


def _run_arm(live: LiveRun, arm: str, scenario: str, load: float, offered: Offered) -> CaseRun:
    title = f"{scenario} {load:g}x {arm}"
    bar = live.progress.add(title, len(offered.requests))
    left = 0

    def on_event(_kind: str, outcome: Outcome | None) -> None:
        nonlocal left
        left += outcome is not None
        live.progress.update(bar, left)

    plain = next((each for each in live.plain if each.name == arm), None)
    if plain is None:
        run = _run_hooked(live, arm, scenario, load, offered, on_event)
    else:
        run = _run_plain(live, plain, scenario, load, offered, on_event)
    met = sum(outcome.met for outcome in run.outcomes)
    live.progress.done(bar, f"{title}: {met} of {len(run.outcomes)} met their SLOs")
    return run


def _run_hooked(
    live: LiveRun, arm: str, scenario: str, load: float, offered: Offered, on_event: OnEvent
) -> CaseRun:
    options = live.options
    if options.ledger_dir is not None:
        path = options.ledger_dir / f"ledger-{scenario}-{load:g}x.sqlite"
        options = replace(options, controller=replace(options.controller, ledger_path=path))
    case = LiveCase(
        scenario, load, parse_arm(arm), offered.requests, live.suite.settings,
        live.suite.drain_s, RecordedEngine(live.server.engine),
    )  # fmt: skip
    return run_case(case, live.server, seed=live.seed, options=options, on_event=on_event)


def _run_plain(
    live: LiveRun, server: PlainServer, scenario: str, load: float, offered: Offered,
    on_event: OnEvent,
) -> CaseRun:  # fmt: skip
    replaying = replay(
        server.url,
        server.model,
        offered.requests,
        settings=live.suite.settings,
        token_seed=live.seed,
        timeout_s=live.options.timeout_s,
        drain_s=live.suite.drain_s,
        run_id=f"{scenario}-{load:g}-{server.name}-",
        dialect="openai",
        on_event=on_event,
    )
    return CaseRun(scenario, load, server.name, asyncio.run(replaying), ())


def _result(live: LiveRun, run: CaseRun, offered: Offered) -> Result:
    result = summarise(
        run,
        span_s(offered.requests),
        warmup_s=live.suite.warmup_s,
        moments_s=offered.moments_s,
        contract=live.suite.settings.contract,
    )
    result["engine"] = f"live {live.server.model}"
    for server in live.plain:
        if server.name == run.arm:
            # Clients cannot see what it preempted; 0 would say that it never did.
            result |= {
                "engine": server.description, "preemptions": None, "recomputed_tokens": None,
            }  # fmt: skip
    return result

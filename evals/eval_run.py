"""How does one `hmas eval run` go from a suite to results? Called by the command.

Builds the suite's workloads, runs them simulated or live, and writes the files of `--out`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from evals.live.own_server import own_server
from evals.live.server import Server, connect, is_url, named_urls
from evals.machines.profile_file import machine_of
from evals.progress import CaseProgress
from evals.report.files import write_files
from evals.requests.scenario import TraceFile, build_workloads
from evals.result.run_result import SuiteRun, git_state
from evals.suite.arms import (
    ControllerOptions,
    controller_config,
    expand_arms,
    listed_arms,
    parse_arm,
)
from evals.suite.suite import Suite
from evals.suite.toml_file import SuiteError
from evals.suite.tuned import tuned_for
from hmas_agents.commands.exits import CommandError

ANY_LENGTH_TOKENS = 1 << 30  # while no server has said what it takes


@dataclass(frozen=True, slots=True)
class LiveTarget:
    """A running server; an empty model means the first one it lists."""

    url: str
    model: str
    token_file: Path
    # It does not run yet: it is started on the port of `url` with that model (empty: SmolLM2) for
    # the length of the run, and `token_file` is not read.
    serve: bool = False
    plain: tuple[str, ...] = ()  # further ones without the hook, each NAME=URL, which run already
    through: str = ""  # the URL that clients send to, of a router before `url`; empty: to `url`


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """A suite, and what the command says beside it; `live` None: simulated."""

    suite: Suite
    trace_file: TraceFile | None
    controller: ControllerOptions
    out: Path | None
    jobs: int
    readings: Path  # what a model understood of the suite's texts, for the arms that go by it
    live: LiveTarget | None


def changed(suite: Suite, seed: int | None, minutes: float | None, arms: str | None) -> Suite:
    """The suite with what the command puts in place of its own.

    Raises:
        SuiteError: an arm is not known; lists those there are.
    """
    if seed is not None:
        suite = suite.model_copy(update={"seeds": (seed,)})
    if arms is not None:
        names = tuple(dict.fromkeys(expand_arms(listed_arms(arms))))
        try:
            for name in names:
                parse_arm(name)
        except ValueError as error:
            raise SuiteError(f"--arms {arms}: {error}") from error
        suite = suite.model_copy(update={"arms": names})
    return suite if minutes is None else suite.with_minutes(minutes)


def run_eval(request: EvalRequest, progress: CaseProgress) -> SuiteRun:
    """Run a suite as asked, and write the files of `out`.

    Raises:
        SuiteError, TraceError: a broken input; names file, line and key.
        ConfigError: the configuration of the controller is broken, or does not fit an arm.
        WorkloadError: too few requests to measure anything by.
        ArmError, CapacityError, EngineUnavailable: the live server is not fit for it.
        ServerError: the server that should be started did not start.
        ChangeError: readings that an arm needs are missing or broken.
        WorkerError: a simulation, or the process of the live clients, failed.
    """
    suite, target = request.suite, request.live
    for arm in map(parse_arm, suite.arms):  # before the first case runs, not after the fourth
        if arm.configured:
            controller_config(request.controller, {}, arm)
    run = _simulate(request, progress) if target is None else _run_live(request, target, progress)
    run = replace(run, config=suite.model_dump(mode="json"), git=git_state())
    if request.out is not None:
        write_files(run, request.out, suite.description)
    return run


def _simulate(request: EvalRequest, progress: CaseProgress) -> SuiteRun:
    suite = request.suite
    profiles = {name: machine_of(suite, name) for name in suite.profiles}
    longest = {name: profile.max_model_len for name, profile in profiles.items()}
    workloads = build_workloads(suite, request.trace_file, longest, progress.warn)
    from evals.report.figures import drawn_arms
    from evals.sim.suite_run import RunOptions, run_suite
    from evals.words.readings import readings_for

    tuned = {}
    if any(parse_arm(arm).tuned for arm in suite.arms):
        tuned = {name: tuned_for(suite.name, name) for name in profiles}
    options = RunOptions(
        request.jobs, request.controller, ledger_dir=_fresh_ledgers(suite, request.out),
        tuned=tuned, readings=readings_for(suite, request.readings),
        drawn=drawn_arms(suite.arms) if request.out is not None else (),
    )  # fmt: skip
    return run_suite(suite, workloads, profiles, options=options, progress=progress)


def _run_live(request: EvalRequest, target: LiveTarget, progress: CaseProgress) -> SuiteRun:
    """All that can be wrong is said before a server is started, not after two minutes."""
    suite = request.suite
    for scenario in suite.scenarios:
        if scenario.slo_scale is not None:
            raise SuiteError(
                f"scenarios: {scenario.name}: slo_scale = {scenario.slo_scale:g}: a running server "
                "has one for all: set it under [settings], or use --engine sim"
            )
    if request.trace_file is not None:
        build_workloads(suite, request.trace_file, {"": ANY_LENGTH_TOKENS}, lambda _: None)
    named = named_urls(target.plain, suite.arms)
    plain = [connect(url, name=name) for name, url in named.items()]
    if not target.serve:
        return _run_on(request, target, plain, progress)
    where = urlsplit(target.url)
    if where.hostname not in ("127.0.0.1", "localhost") or where.port is None:
        raise CommandError(f"--url {target.url}: --serve wants one like http://127.0.0.1:8000")
    out = request.out or Path("var/evals") / suite.name
    with own_server(
        suite.settings, out, progress.note, port=where.port, model=target.model,
        arguments=suite.server,
    ) as server:  # fmt: skip
        started = LiveTarget(server.url, server.model, server.token_file)
        return _run_on(request, started, plain, progress)


def _run_on(
    request: EvalRequest, target: LiveTarget, plain: Sequence[Server], progress: CaseProgress
) -> SuiteRun:
    from evals.live.run import LiveRun, run_live_suite
    from serving.engines.live import read_token
    from serving.fleet.connect import connect as connect_engine

    suite, where = request.suite, target.url.rstrip("/").removesuffix("/v1")
    url = target.through.rstrip("/").removesuffix("/v1") or where
    if not is_url(url):
        raise CommandError(f"--url {where}: clients send to one URL: say it with --through")
    engine = connect_engine(where, read_token(target.token_file))
    server = connect(url, engine)
    if target.model:
        server = replace(server, model=target.model)
    if not server.ends_answers:
        progress.warn(
            f"{url} does not end answers at a length of the client's choosing: it is told how "
            "long each is; start it with --logits-processors evals.live.answer_length:AnswerLength"
        )
    longest = engine.snapshot().envelope.max_model_len
    workloads = build_workloads(suite, request.trace_file, {"": longest}, progress.warn)
    ledgers = _fresh_ledgers(suite, request.out)
    live = LiveRun(suite, server, progress, plain, request.controller, ledger_dir=ledgers)
    return run_live_suite(live, workloads)


def _fresh_ledgers(suite: Suite, out: Path | None) -> Path | None:
    if out is None or "hmas" not in suite.arms:
        return None
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("ledger-*.sqlite*"):
        stale.unlink()
    return out

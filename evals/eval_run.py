"""How does one `hmas eval run` go from a suite file to results? Called by the command.

Loads the suite, builds its workloads, picks the simulated or the live runner, and
writes the files of `--out`.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from evals.arms import ControllerOptions
from evals.live_arm import ArmError
from evals.live_capacity import CapacityError
from evals.own_server import own_server
from evals.progress import CaseProgress
from evals.run_result import SuiteRun, to_json
from evals.scenario import TraceFile, Workload, build_workload
from evals.suite import Suite, load_profile, load_suite
from evals.toml_file import SuiteError
from evals.workers import WorkerError
from evals.workloads.scaling import WorkloadError
from evals.workloads.trace import TraceError
from hmas_agents.config import ConfigError
from serving.engines.protocol import EngineUnavailable
from serving.launcher import ServerError

# What can go wrong that is not a defect: the command prints one line for it.
EXPECTED = (
    ArmError,
    CapacityError,
    ConfigError,
    EngineUnavailable,
    ServerError,
    SuiteError,
    TraceError,
    WorkerError,
    WorkloadError,
)


@dataclass(frozen=True, slots=True)
class LiveTarget:
    """A running server; an empty model means the first one it lists.

    With `serve` it does not run yet: it is started on the port of `url` with that model
    (empty: SmolLM2) for the length of the run, and `token_file` is not read.
    """

    url: str
    model: str
    token_file: Path
    serve: bool = False


@dataclass(frozen=True, slots=True)
class EvalRequest:
    """One run as asked for; None means what the suite says."""

    suite_file: Path
    seed: int | None
    requests: int | None
    trace_file: TraceFile | None
    controller: ControllerOptions
    out: Path | None
    jobs: int
    live: LiveTarget | None


def run_eval(request: EvalRequest, progress: CaseProgress) -> SuiteRun:
    """Run a suite as asked, and write the files of `out`.

    Raises:
        SuiteError, TraceError: a broken input; names file, line and key.
        ArmError, CapacityError, EngineUnavailable: the live server is not fit for it.
        ServerError: the server that should be started did not start.
        WorkerError: a simulation failed.
    """
    suite = load_suite(request.suite_file)
    seed = suite.seed if request.seed is None else request.seed
    if request.requests is not None:
        scenarios = tuple(
            scenario.model_copy(update={"requests": request.requests})
            for scenario in suite.scenarios
        )
        suite = suite.model_copy(update={"scenarios": scenarios})
    if request.live is None:
        run = _simulate(suite, seed, request, progress)
    elif request.live.serve:
        run = _serve_and_run(suite, seed, request, request.live, progress)
    else:
        run = _run_live(suite, seed, request, request.live, progress)
    if request.out is not None:
        write_files(run, request.out, suite.description)
    return run


def build_workloads(
    suite: Suite,
    seed: int,
    trace_file: TraceFile | None,
    max_model_len: int,
    warn: Callable[[str], None],
) -> list[Workload]:
    """The workloads of a suite's scenarios, in order."""
    return [
        build_workload(
            scenario, seed=seed, max_model_len=max_model_len, trace_file=trace_file, warn=warn
        )
        for scenario in suite.scenarios
    ]


def write_files(run: SuiteRun, out: Path, description: str) -> None:
    """Write results.json, results.md, outcomes.jsonl and report.html into a folder.

    Of more arms than a figure can show there are no outcomes: they would be hundreds of MB.
    """
    from evals.report import MOST_ARMS_DRAWN, CaseReport, markdown_report, write_suite_report

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(to_json(run) + "\n", encoding="utf-8")
    (out / "results.md").write_text(markdown_report(run.results), encoding="utf-8")
    outcomes = out / "outcomes.jsonl"
    outcomes.unlink(missing_ok=True)
    if len({case.arm for case in run.runs}) <= MOST_ARMS_DRAWN:
        _write_outcomes(run, outcomes)
    cases = []
    for scenario, load in dict.fromkeys((case.scenario, case.load) for case in run.runs):
        arms = [c for c in run.runs if (c.scenario, c.load) == (scenario, load)]
        decisions = next((c.decisions for c in arms if c.arm == "hmas"), ())
        cases.append(CaseReport(scenario, load, {c.arm: c.outcomes for c in arms}, decisions))
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    subtitle = f"{description}. Seed {run.seed}; {versions}."
    write_suite_report(out / "report.html", f"Eval {run.suite}", subtitle, run.results, cases)


def _write_outcomes(run: SuiteRun, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for case in run.runs:
            where = {"scenario": case.scenario, "load": case.load, "arm": case.arm}
            for outcome in case.outcomes:
                file.write(json.dumps(where | dataclasses.asdict(outcome)) + "\n")


def _simulate(
    suite: Suite, seed: int, request: EvalRequest, progress: CaseProgress
) -> SuiteRun:
    from evals.runner import RunOptions, run_suite

    profile = load_profile(suite.profile)
    workloads = build_workloads(
        suite, seed, request.trace_file, profile.max_model_len, progress.warn
    )
    options = RunOptions(request.jobs, request.controller, _ledger_dir(suite.arms, request.out))
    return run_suite(suite, workloads, profile, seed=seed, options=options, progress=progress)


def _serve_and_run(
    suite: Suite, seed: int, request: EvalRequest, target: LiveTarget, progress: CaseProgress
) -> SuiteRun:
    where = urlsplit(target.url)
    if where.hostname not in ("127.0.0.1", "localhost") or where.port is None:
        raise ServerError(f"--url {target.url}: --serve wants one like http://127.0.0.1:8000")
    out = request.out or Path("var/evals") / suite.name
    progress.note(f"starting vLLM with the hook (1-2 minutes; log: {out / 'vllm.log'})")
    with own_server(
        suite.settings, out, port=where.port, model=target.model, arguments=suite.server
    ) as server:
        started = LiveTarget(server.url, server.model, server.token_file)
        return _run_live(suite, seed, request, started, progress)


def _run_live(
    suite: Suite, seed: int, request: EvalRequest, target: LiveTarget, progress: CaseProgress
) -> SuiteRun:
    from evals.live_runner import LiveOptions, LiveServer, run_live_suite, served_model
    from serving.engines.live import LiveEngine, read_token

    url = target.url.rstrip("/").removesuffix("/v1")
    engine = LiveEngine(url, read_token(target.token_file))
    model, max_model_len = served_model(url)
    workloads = build_workloads(suite, seed, request.trace_file, max_model_len, progress.warn)
    return run_live_suite(
        suite,
        workloads,
        LiveServer(url, target.model or model, engine),
        seed=seed,
        options=LiveOptions(request.controller, ledger_dir=_ledger_dir(suite.arms, request.out)),
        progress=progress,
    )


def _ledger_dir(arms: Sequence[str], out: Path | None) -> Path | None:
    if out is None or "hmas" not in arms:
        return None
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("ledger-*.sqlite*"):
        stale.unlink()
    return out

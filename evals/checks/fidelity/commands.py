"""`hmas calibrate` and `hmas eval fidelity`: how good is the simulator? Wiring only."""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmas_agents.commands.options import JsonOption

if TYPE_CHECKING:
    from evals.checks.fidelity.comparison import Comparison
    from evals.checks.fidelity.server import MeasuredServer
    from evals.progress import CaseProgress
    from evals.suite.suite import Suite
    from serving.engines.profile import EngineProfile

Url = Annotated[
    str,
    typer.Option(help="A running server that writes --step-log; default: start one, and stop it."),
]
StepLogFile = Annotated[
    Path,
    typer.Option(
        help="With --url: the file that the server writes, started with HMAS_STEP_LOG=FILE hmas "
        "serve --scheduler-cls evals.checks.fidelity.step_log.step_log_scheduler."
    ),
]
TokenFile = Annotated[Path, typer.Option(help="With --url: token of the control routes.")]
Port = Annotated[int, typer.Option(help="Port of the server that is started.")]
Model = Annotated[str, typer.Option(help="Model to start it with; default: SmolLM2-135M.")]
Seconds = Annotated[float, typer.Option(min=10, help="Length of the designed load.")]


def calibrate(
    *,
    name: Annotated[str, typer.Option(help="Name of the profile.")] = "calibrated",
    seconds: Seconds = 240.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides the load's requests.")] = 0,
    url: Url = "",
    step_log: StepLogFile = Path("var/steps.csv"),
    token_file: TokenFile = Path("var/hmas.token"),
    port: Port = 8000,
    model: Model = "",
    out: Annotated[
        Path, typer.Option(help="Folder for NAME.toml, calibration.json and calibration.png.")
    ] = Path("var/calibration"),
    json_output: JsonOption = False,
) -> None:
    """Fit the simulator's cost model to a live server: a designed load, every step measured.

    Nobody else may use the server meanwhile; what else the machine does is in the figures.

    hmas calibrate --name my_machine --seconds 240

    hmas calibrate --url http://127.0.0.1:8000 --step-log var/steps.csv --json
    """
    from evals.checks.fidelity.calibrate import Calibrator
    from evals.checks.fidelity.calibration_file import (
        calibration_document,
        calibration_sheet,
        write_files,
    )
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.progress import CaseProgress
    from evals.report.sheet import show

    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with CaseProgress() as progress, measured_server(choice, progress) as server:
        calibrator = Calibrator(server, seconds, seed, progress)
        calibrator.load(seconds)
        calibration = calibrator.finish(name)
    write_files(calibration, out, _command())
    show(calibration_document(calibration), json_output, calibration_sheet(calibration))
    typer.echo(f"written: {out}/{name}.toml, calibration.json, calibration.png", err=True)


def fidelity(
    suite_file: Annotated[
        Path,
        typer.Argument(
            metavar="SUITE.toml", help="For example evals/checks/fidelity/cpu_suite.toml"
        ),
    ],
    *,
    profile: Annotated[
        str, typer.Option(help="Name in evals/profiles, or a TOML file; default: the suite's.")
    ] = "",
    fitted: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Fit a profile on this server between the replays, and use it."
        ),
    ] = False,
    seconds: Seconds = 240.0,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Length of a case, instead of the suite's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the suite's.")] = None,
    url: Url = "",
    step_log: StepLogFile = Path("var/steps.csv"),
    token_file: TokenFile = Path("var/hmas.token"),
    port: Port = 8000,
    model: Model = "",
    out: Annotated[
        Path, typer.Option(help="Folder for fidelity.json, fidelity.md and fidelity.png.")
    ] = Path("var/fidelity"),
    json_output: JsonOption = False,
) -> None:
    """Replay the same requests live and simulated, and report the errors of the simulator.

    hmas eval fidelity evals/checks/fidelity/cpu_suite.toml --profile cpu_smollm2

    hmas eval fidelity evals/checks/fidelity/cpu_suite.toml --calibrate --json
    """
    from evals.checks.fidelity.report import fidelity_sheet, write_files
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.machines.profile_file import machine_of
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.suite.suite import load_suite

    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with CaseProgress() as progress:
        suite = load_suite(suite_file)
        if minutes is not None:
            suite = suite.with_minutes(minutes)
        drawn = suite.every_seed[0] if seed is None else seed
        given = None if fitted else machine_of(suite, profile)
        with measured_server(choice, progress, suite.settings, suite.server) as server:
            comparisons = _compare(suite, server, given, seconds, drawn, out, progress)
    document = write_files(suite.name, drawn, comparisons, out)
    show(document, json_output, fidelity_sheet(document["results"]))
    typer.echo(f"written: {out}/fidelity.json, fidelity.md, fidelity.png", err=True)


def _compare(
    suite: "Suite", server: "MeasuredServer", given: "EngineProfile | None", seconds: float,
    seed: int, out: Path, progress: "CaseProgress",
) -> list["Comparison"]:  # fmt: skip
    """Live, then simulated on the given profile or one fitted between the live cases."""
    from evals.checks.fidelity.calibrate import Calibrator, idle_overhead_s
    from evals.checks.fidelity.calibration_file import write_files
    from evals.checks.fidelity.fidelity import compare_on, replay_suite, sized_as
    from evals.requests.scenario import build_workloads

    max_model_len = server.engine.snapshot().envelope.max_model_len
    one_seed = suite.model_copy(update={"seeds": (seed,)})
    workloads = build_workloads(one_seed, None, {"": max_model_len}, progress.warn)
    overhead_s = idle_overhead_s(server, seed)
    progress.note(f"client's overhead at idle: {overhead_s * 1000:.1f} ms")
    replay = partial(replay_suite, one_seed, workloads, server, progress=progress)
    if given is not None:
        replayed = replay()
        profile = sized_as(given, server.engine.snapshot())
    else:
        calibrator = Calibrator(server, seconds, seed, progress)
        parts = len(suite.scenarios) * len(suite.loads) * len(suite.arms) + 1
        replayed = replay(between=lambda: calibrator.load(seconds / parts))
        calibration = calibrator.finish("calibrated")
        write_files(calibration, out, _command())
        profile = calibration.profile
    return compare_on(profile, replayed, overhead_s=overhead_s, progress=progress)


def _command() -> str:
    return " ".join(["hmas", *sys.argv[1:]])

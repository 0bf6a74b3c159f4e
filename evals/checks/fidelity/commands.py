"""`hmas calibrate` and `hmas eval fidelity`: how good is the simulator? Wiring only."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.options import JsonOption

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
    from evals.checks.fidelity.report import (
        calibration_document,
        calibration_sheet,
        write_calibration,
    )
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.progress import CaseProgress
    from evals.report.sheet import show

    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with CaseProgress() as progress, measured_server(choice, progress) as server:
        calibrator = Calibrator(server, seconds, seed, progress)
        calibrator.load(seconds)
        calibration = calibrator.finish(name)
    write_calibration(calibration, out, _command())
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
    from evals.checks.fidelity.calibrate import Calibrator, idle_overhead_s
    from evals.checks.fidelity.fidelity import compare_on, replay_suite, sized_as
    from evals.checks.fidelity.report import fidelity_sheet, write_calibration, write_fidelity
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.machines.profile_file import machine_of
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.requests.scenario import build_workloads
    from evals.suite.suite import load_suite

    suite = load_suite(suite_file)
    suite = suite.model_copy(update={"seeds": suite.every_seed[:1]})
    given = None if fitted else machine_of(suite, profile)
    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with (
        CaseProgress() as progress,
        measured_server(choice, progress, suite.settings, suite.server) as server,
    ):
        envelope = server.engine.snapshot().envelope
        workloads = build_workloads(suite, None, {"": envelope.max_model_len}, progress.warn)
        overhead_s = idle_overhead_s(server, suite.every_seed[0])
        progress.note(f"client's overhead at idle: {overhead_s * 1000:.1f} ms")
        if given is not None:
            replayed = replay_suite(suite, workloads, server, progress=progress)
            used = sized_as(given, server.engine.snapshot())
        else:
            calibrator = Calibrator(server, seconds, suite.every_seed[0], progress)
            part_s = seconds / (len(suite.scenarios) * len(suite.loads) * len(suite.arms) + 1)
            replayed = replay_suite(
                suite, workloads, server, progress=progress,
                between=lambda: calibrator.load(part_s),
            )  # fmt: skip
            calibration = calibrator.finish("calibrated")
            write_calibration(calibration, out, _command())
            used = calibration.profile
        comparisons = compare_on(used, replayed, overhead_s=overhead_s, progress=progress)
    document = write_fidelity(suite.name, suite.every_seed[0], comparisons, out)
    show(document, json_output, fidelity_sheet(document["results"]))
    typer.echo(f"written: {out}/fidelity.json, fidelity.md, fidelity.png", err=True)


def _command() -> str:
    return " ".join(["hmas", *sys.argv[1:]])

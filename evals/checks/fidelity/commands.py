"""`hmas calibrate` and `hmas eval fidelity`: how good is the simulator? Wiring only."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evals.checks.fidelity.calibrate import Calibration
    from evals.checks.fidelity.comparison import Comparison
    from evals.checks.fidelity.server import MeasuredServer
    from evals.progress import CaseProgress
    from evals.report.sheet import Sheet
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
JsonOutput = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output.")
]


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
    json_output: JsonOutput = False,
) -> None:
    """Fit the simulator's cost model to a live server: a designed load, every step measured.

    Nobody else may use the server meanwhile; what else the machine does is in the figures.

    hmas calibrate --name my_machine --seconds 240

    hmas calibrate --url http://127.0.0.1:8000 --step-log var/steps.csv --json
    """
    from evals.checks.fidelity.calibration_file import calibration_document
    from evals.checks.fidelity.report import calibration_sheet
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.progress import CaseProgress
    from serving.contracts.settings import EngineSettings

    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with CaseProgress() as progress:
        if not url:
            progress.note(f"starting vLLM with the hook (1-2 minutes; log: {out / 'vllm.log'})")
        with measured_server(choice, EngineSettings()) as server:
            loading = _Loading(server, seconds, seed, progress)
            loading.part(seconds)
            calibration = loading.calibration(name, out)
    document = calibration_document(calibration)
    _show(document, calibration_sheet(calibration), json_output)
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
    json_output: JsonOutput = False,
) -> None:
    """Replay the same requests live and simulated, and report the errors of the simulator.

    hmas eval fidelity evals/checks/fidelity/cpu_suite.toml --profile cpu_smollm2

    hmas eval fidelity evals/checks/fidelity/cpu_suite.toml --calibrate --json
    """
    from evals.checks.fidelity.report import fidelity_sheet
    from evals.checks.fidelity.server import ServerChoice, measured_server
    from evals.machines.profile_file import machine_of
    from evals.progress import CaseProgress
    from evals.suite.suite import load_suite

    choice = ServerChoice(url, token_file, step_log, port, model, out)
    with CaseProgress() as progress:
        suite = load_suite(suite_file)
        if minutes is not None:
            suite = suite.with_minutes(minutes)
        drawn = suite.every_seed[0] if seed is None else seed
        given = None if fitted else machine_of(suite, profile)
        if not url:
            progress.note(f"starting vLLM with the hook (1-2 minutes; log: {out / 'vllm.log'})")
        with measured_server(choice, suite.settings, suite.server) as server:
            comparisons = _compare(suite, server, given, seconds, drawn, out, progress)
    document = _write_comparisons(suite.name, drawn, comparisons, out)
    _show(document, fidelity_sheet([c.result for c in comparisons]), json_output)
    typer.echo(f"written: {out}/fidelity.json, fidelity.md, fidelity.png", err=True)


class _Loading:
    """A calibration with its bar."""

    def __init__(
        self, server: "MeasuredServer", seconds: float, seed: int, progress: "CaseProgress"
    ) -> None:
        from evals.checks.fidelity.calibrate import Calibrator, length_s

        self._progress = progress
        self._bar = bar = progress.add("calibration (seconds)", round(length_s(seconds)))
        self._calibrator = Calibrator(
            server, seed=seed, on_progress=lambda done_s: progress.update(bar, int(done_s))
        )
        self.part = self._calibrator.load

    def calibration(self, name: str, out: Path) -> "Calibration":
        from evals.checks.fidelity.calibration_file import calibration_document, write_profile
        from evals.checks.fidelity.machine import warning
        from evals.checks.fidelity.report import calibration_plot

        calibration = self._calibrator.finish(name)
        self._progress.done(self._bar, f"calibration: {calibration.profile.provenance}")
        if line := warning(calibration.facts["others_cpu_share"]):
            self._progress.warn(line)
        write_profile(calibration, out / f"{name}.toml", " ".join(["hmas", *sys.argv[1:]]))
        text = json.dumps(calibration_document(calibration), indent=2)
        (out / "calibration.json").write_text(text + "\n", encoding="utf-8")
        calibration_plot(calibration, out / "calibration.png")
        return calibration


def _compare(
    suite: "Suite", server: "MeasuredServer", given: "EngineProfile | None", seconds: float,
    seed: int, out: Path, progress: "CaseProgress",
) -> list["Comparison"]:  # fmt: skip
    """Live, then simulated on the given profile or one fitted between the live cases."""
    from evals.checks.fidelity.calibrate import idle_overhead_s
    from evals.checks.fidelity.fidelity import compare_on, replay_suite, sized_as
    from evals.requests.scenario import build_workloads

    max_model_len = server.engine.snapshot().envelope.max_model_len
    one_seed = suite.model_copy(update={"seeds": (seed,)})
    workloads = build_workloads(one_seed, None, {"": max_model_len}, progress.warn)
    overhead_s = idle_overhead_s(server, seed)
    progress.note(f"client's overhead at idle: {overhead_s * 1000:.1f} ms")
    if given is not None:
        replayed = replay_suite(suite, workloads, server, seed=seed, progress=progress)
        profile = sized_as(given, server.engine.snapshot())
    else:
        loading = _Loading(server, seconds, seed, progress)
        parts = len(suite.scenarios) * len(suite.loads) * len(suite.arms) + 1
        replayed = replay_suite(
            suite, workloads, server, seed=seed, progress=progress,
            between=lambda: loading.part(seconds / parts),
        )  # fmt: skip
        profile = loading.calibration("calibrated", out).profile
    return compare_on(profile, replayed, overhead_s=overhead_s, progress=progress)


def _write_comparisons(
    suite: str, seed: int, comparisons: Sequence["Comparison"], out: Path
) -> dict[str, Any]:
    from evals.checks.fidelity.report import fidelity_plot, fidelity_sheet
    from evals.report.sheet import markdown
    from evals.result.metrics import rounded
    from evals.result.run_result import versions

    results = [rounded(comparison.result) for comparison in comparisons]
    document = {"suite": suite, "seed": seed, "versions": versions(), "results": results}
    out.mkdir(parents=True, exist_ok=True)
    (out / "fidelity.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (out / "fidelity.md").write_text(markdown(fidelity_sheet(results)), encoding="utf-8")
    fidelity_plot(comparisons, out / "fidelity.png")
    return document


def _show(document: dict[str, Any], sheet: "Sheet", json_output: bool) -> None:
    from rich.console import Console

    from evals.report.sheet import terminal

    console = Console(stderr=json_output, highlight=False)
    if not console.is_terminal:
        console.width = 120
    if json_output:
        typer.echo(json.dumps(document, indent=2))
    console.print(terminal(sheet))

"""Which commands belong to the evals? `hmas eval ...` and `hmas traces fetch`.

Wiring only. Heavy imports (vLLM, matplotlib) stay inside the functions that need them.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from evals.agent.commands import app as agent_app
from evals.agent.commands import hostile
from evals.agent.situations_command import situations
from evals.checks.fidelity.commands import fidelity
from evals.checks.replicas.commands import flood, routing
from evals.report_command import compare, coverage, pages, report
from evals.requests.options import DrawOption, FormatOption, trace_file
from evals.words.words_command import words
from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import JsonOption

app = typer.Typer(help="Does it pay? Replay traces against policies and H-MAS.")
for command in (
    compare, coverage, fidelity, flood, hostile, pages, report, routing, situations, words,
):  # fmt: skip
    app.command()(command)
app.add_typer(agent_app, name="agent")
traces_app = typer.Typer(help="The public traces that evals replay.")


@app.callback()
def evals() -> None:
    """Does it pay? Replay traces against policies and H-MAS."""


@traces_app.callback()
def traces() -> None:
    """The public traces that evals replay."""


@app.command()
def run(
    suite_file: Annotated[
        Path, typer.Argument(metavar="SUITE.toml", help="For example evals/suites/smoke.toml.")
    ],
    *,
    engine: Annotated[
        Literal["sim", "live"],
        typer.Option(help="sim: in virtual time, no server. live: a running server."),
    ] = "sim",
    url: Annotated[
        str, typer.Option(help="live: the server, or several as `hmas run --url` takes them.")
    ] = "http://127.0.0.1:8000",
    through: Annotated[
        str, typer.Option(metavar="URL", help="live: the router before them, that clients send to.")
    ] = "",
    model: Annotated[str, typer.Option(help="live: model to load; default: the first.")] = "",
    token_file: Annotated[Path, typer.Option(help="live: token of the control routes.")] = Path(
        "var/hmas.token"
    ),
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="live: start the server at --url, with --model or SmolLM2 and the suite's "
            "arguments, and stop it at the end.",
        ),
    ] = False,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=URL",
            help="live: an arm NAME more, served by what runs at URL: SGLang, vLLM without the "
            "hook, or any other with the OpenAI completions API. Repeatable.",
        ),
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="Put this trace in place of the suite's.")
    ] = None,
    trace_format: FormatOption = None,
    draw: DrawOption = None,
    json_output: JsonOption = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results.json, results.md, report.html, outcomes, ledgers."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Instead of the suite's; same seed, same bytes.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="sim: worker processes; 0: one per core.")] = 0,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Length of a case, instead of the suite's.")
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Instead of the suite's, with commas: hmas,fixed-*+rules,fixed-sjf:kappa=40+slack."
        ),
    ] = None,
    model_url: Annotated[
        str | None, typer.Option(help="Endpoint of the policy agent's model; default: rules.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Controller configuration of the arm hmas (TOML).")
    ] = None,
    readings: Annotated[
        Path,
        typer.Option(help="sim: what `hmas eval words --readings` kept, for the arm words-taught."),
    ] = Path("evals/cases/words_readings.jsonl"),
    cassette: Annotated[
        Path | None,
        typer.Option(
            help="sim: file of the model's replies: with --model-url recorded, without it played."
        ),
    ] = None,
) -> None:
    """Run a suite: every scenario at every load under every arm.

    hmas eval run evals/suites/smoke.toml

    hmas eval run evals/suites/smoke.toml --json --out var/evals/smoke

    hmas eval run evals/suites/smoke.toml --trace burst.csv --format burstgpt

    hmas eval run evals/suites/smoke.toml --trace clients --draw hours=9..10

    hmas eval run evals/suites/smoke.toml --engine live --url http://gpu-7:8000

    hmas eval run evals/suites/live.toml --serve

    hmas eval run my.toml --engine live --url dns://vllm:80 --through http://gate

    hmas eval run my_suite.toml --serve --server sglang=http://127.0.0.1:30000
    """
    from evals.eval_run import EvalRequest, LiveTarget, changed, run_eval
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.report.summary import Summary
    from evals.report.tables import case_sheets, summary_sheets
    from evals.result.run_result import to_json
    from evals.suite.arms import ControllerOptions
    from evals.suite.suite import load_suite

    if trace is None:
        for option, value in (("--format", trace_format), ("--draw", draw)):
            if value is not None:
                raise typer.BadParameter(f"{option} {value}: goes with --trace")
    live = serve or engine == "live"
    if live and cassette is not None:
        raise typer.BadParameter("--cassette: a live run asks the model itself")
    if through and (serve or not live):
        raise typer.BadParameter(f"--through {through}: goes with --engine live, without --serve")
    if server and not live:
        raise typer.BadParameter(f"--server {server[0]}: goes with --serve or --engine live")
    target = LiveTarget(url, model, token_file, serve, tuple(server or ()), through)
    request = EvalRequest(
        changed(load_suite(suite_file), seed, minutes, arms),
        None if trace is None else trace_file(trace, trace_format, draw),
        ControllerOptions(config_path=config, model_url=model_url, cassette=cassette), out, jobs,
        readings, target if live else None,
    )  # fmt: skip
    with CaseProgress() as progress:
        result = run_eval(request, progress)
    summary = Summary.of(result.results)
    show(to_json(result), json_output, *case_sheets(summary), *summary_sheets(summary))
    if out is not None:
        typer.echo(f"report: {out / 'report.html'}", err=True)


@traces_app.command()
def fetch(
    source: Annotated[
        Literal["azure", "servegen"],
        typer.Argument(help="servegen: the clients of deepseek-r1."),
    ] = "azure",
    *,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where to put them; evals look in var/traces.")
    ] = Path("var/traces"),
) -> None:
    """Download public traces from GitHub: Azure's of 2023 (1 MB, CC-BY) or ServeGen's clients.

    hmas traces fetch

    hmas traces fetch servegen

    Evals find them in var/traces, or in the folder that HMAS_TRACES names. ServeGen's (13 MB,
    Apache-2.0) are 146 small files; interrupted, the same command goes on.
    """
    import httpx

    from evals.progress import progress_bar
    from evals.requests.azure_files import AZURE_FILES, fetch_azure
    from evals.requests.servegen_files import FETCHED, fetch_servegen
    from evals.requests.trace import TraceError

    with (
        progress_bar() as on_progress,
        httpx.Client(follow_redirects=True, timeout=30) as client,
    ):
        for name in AZURE_FILES if source == "azure" else FETCHED:
            tell = partial(on_progress, name)
            try:
                if source == "azure":
                    fetch_azure(AZURE_FILES[name], folder, tell, client)
                else:
                    fetch_servegen(name, folder, tell, client)
            except TraceError as error:  # elsewhere it is about an input
                raise CommandError(str(error), FAILED) from error
    typer.echo(f"{source} traces are in {folder}")


@app.command()
def tune(
    suite_file: Annotated[
        Path, typer.Argument(metavar="SUITE.toml", help="For example evals/suites/drift.toml.")
    ],
    *,
    seeds: Annotated[
        int, typer.Option(min=1, help="Blocks of the development half to tune on.")
    ] = 5,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    config: Annotated[
        Path | None, typer.Option(help="Controller configuration of the arms with states (TOML).")
    ] = None,
) -> None:
    """Tune the arms that learn, on a suite's development half only.

    hmas eval tune evals/suites/drift.toml

    Writes evals/tuned/SUITE.toml: options of stock vLLM, the best fixed arm, a threshold and a
    tree, for each machine of the suite. It is read by the arms vllm-tuned, best-fixed, threshold
    and tree.
    """
    from evals.machines.profile_file import machine_of
    from evals.progress import CaseProgress
    from evals.requests.scenario import build_workloads
    from evals.sim.suite_run import RunOptions
    from evals.sim.tune import for_tuning
    from evals.sim.tune import tune as run_tuning
    from evals.suite.arms import ControllerOptions
    from evals.suite.suite import load_suite
    from evals.suite.tuned import write_tuned

    suite = for_tuning(load_suite(suite_file), seeds)
    profiles = {name: machine_of(suite, name) for name in suite.profiles}
    options = RunOptions(jobs, ControllerOptions(config_path=config))
    with CaseProgress() as progress:
        longest = {name: profile.max_model_len for name, profile in profiles.items()}
        workloads = build_workloads(suite, None, longest, progress.warn)
        found = run_tuning(suite, workloads, profiles, options, progress)
        progress.note(f"tuned: {write_tuned(found)}")

"""`hmas demo`: what `make demo` runs."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import JsonOption


def demo(
    duration: Annotated[
        float, typer.Option(min=20, help="Seconds of traffic for each of the two arms.")
    ] = 120.0,
    length_scale: Annotated[
        float | None, typer.Option(help="Factor on the trace's lengths; default 0.125.")
    ] = None,
    load: Annotated[float, typer.Option(min=0.1, help="Multiple of the measured capacity.")] = 1.5,
    port: Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.")] = 8000,
    out: Annotated[Path, typer.Option(help="Folder for ledger, report and log.")] = Path(
        "var/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Decides tenants and prompts.")] = 1,
    json_output: JsonOption = False,
) -> None:
    """Show on a real vLLM what H-MAS does: the same traffic, default order, then H-MAS.

    Starts vLLM with SmolLM2-135M, measures its capacity, replays several tenants'
    traffic above it twice, prints a table, writes an HTML report, shows what words (`hmas tell`)
    would change, and stops the server.

    Example: hmas demo --duration 60 --load 1.2
    """
    from evals.demo.run import DemoOptions, run_demo, summary_lines
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.report.summary import Summary
    from evals.report.tables import case_sheets

    options = DemoOptions(duration, length_scale, load, port, out, seed)
    # `make` answers Ctrl-C and kill with SIGTERM for its children: stop the server then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with CaseProgress() as progress:
        run = run_demo(options, progress)
    show(
        {"results": run.suite.results, "balanced": not run.mismatches, "told": run.told},
        json_output, *case_sheets(Summary.of(run.suite.results)), *summary_lines(run, options),
    )  # fmt: skip
    if run.mismatches:
        raise typer.Exit(FAILED)

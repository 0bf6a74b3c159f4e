"""`hmas demo`: what `make demo` runs."""

import json
import signal
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED, CommandError


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
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the results as one JSON object.")
    ] = False,
) -> None:
    """Show on a real vLLM what H-MAS does: the same traffic, default order, then H-MAS.

    Starts vLLM with SmolLM2-135M, measures its capacity, replays several tenants'
    traffic above it twice, prints a table, writes an HTML report, stops the server.

    Example: hmas demo --duration 60 --load 1.2
    """
    from rich.console import Console

    from evals.demo.run import DemoOptions, print_summary, run_demo
    from serving.launch.model import SMOLLM2, is_complete

    console = Console(stderr=json_output, highlight=False)
    if not is_complete(SMOLLM2):
        raise CommandError(f"no model in {SMOLLM2}: run `make model` first")
    options = DemoOptions(duration, length_scale, load, port, out, seed)
    # `make` answers Ctrl-C and kill with SIGTERM for its children: stop the server then, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = run_demo(options, console)
    print_summary(run, options, console)
    if json_output:
        typer.echo(json.dumps({"results": run.suite.results, "balanced": run.books.balanced}))
    if not run.books.balanced:
        raise typer.Exit(FAILED)

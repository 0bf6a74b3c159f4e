"""`hmas bench`: what does the hook cost? Wiring only; vLLM is imported when a command runs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What does the hook cost? Timings against stock vLLM's scheduler.")


@app.callback()
def bench() -> None:
    """What does the hook cost? Timings against stock vLLM's scheduler."""


@app.command()
def scheduler(
    *,
    waiting: Annotated[
        list[int] | None,
        typer.Option(min=10, help="Requests waiting; repeatable. Default: 100 to 100000."),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Requests in the running batch.")] = 256,
    policies: Annotated[
        str, typer.Option(help="Policies to time, with commas between; default: every one.")
    ] = "",
    rules: Annotated[
        bool, typer.Option("--rules", help="Time each policy also with all rules switched on.")
    ] = False,
    steps: Annotated[
        int, typer.Option(min=12, help="Steps per policy, round and queue length.")
    ] = 180,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds through all policies.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Decides requests and aborts.")] = 0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scheduler.json and operations.png.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the hook's time goes, instead.")
    ] = False,
) -> None:
    """Time the hook's schedule() against stock vLLM's on the same queue, step by step in turn.

    hmas bench scheduler --waiting 10000 --policies edf,slide

    hmas bench scheduler --json --out var/bench

    hmas bench scheduler --waiting 10000 --policies edf --profile
    """
    from rich.console import Console

    from evals.bench.report import memory_line, operations_plot, operations_table, ratio_table
    from serving.policies import POLICIES

    names = tuple(name.strip() for name in policies.split(",") if name.strip()) or tuple(POLICIES)
    if unknown := [name for name in names if name not in POLICIES]:
        typer.echo(
            f"error: --policies: no policy {unknown[0]!r}; there are {', '.join(POLICIES)}",
            err=True,
        )
        raise typer.Exit(2)

    from evals.bench.memory import memory_per_request
    from evals.bench.scheduler_bench import WAITING, BenchOptions, profile_steps, run_bench

    options = BenchOptions(names, tuple(waiting or WAITING), running, steps, rounds, rules, seed)
    if profile:
        typer.echo(profile_steps(options))
        return
    console = Console(stderr=json_output, highlight=False)
    if not console.is_terminal:
        console.width = 100
    with _progress() as on_progress:
        results = run_bench(options, on_progress)
    memory = memory_per_request()
    document = {"results": results, "memory": memory}
    if json_output:
        typer.echo(json.dumps(document, indent=1))
    console.print(ratio_table(results), operations_table(results))
    console.print(memory_line(memory))
    if out is not None:
        operations_plot(results, out / "operations.png")
        (out / "scheduler.json").write_text(json.dumps(document, indent=1))
        console.print(f"written: {out}/scheduler.json, {out}/operations.png")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, described anew at each call; nothing without a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("building")
        yield lambda title, done, total: bars.update(
            bar, description=title, completed=done, total=total
        )

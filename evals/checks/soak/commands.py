"""`hmas soak`: does the engine stay whole under random traffic and random decisions?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from hmas_agents.commands.exits import FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from evals.checks.soak.clients import Clients
    from evals.checks.soak.steering import Steering

_LINE_EVERY_S = 60.0


def soak(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="How long clients send; the end takes a little more.")
    ] = 20.0,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Requests per second, on average.")
    ] = 2.5,
    seed: Annotated[int, typer.Option(min=0, help="Decides requests and decisions.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.")] = 8000,
    model: Annotated[
        str, typer.Option(help="Model to serve; default: SmolLM2-135M, with two LoRA adapters.")
    ] = "",
    api_servers: Annotated[
        int, typer.Option(min=1, help="API servers before the engine; /metrics must add up.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for soak.json and the server's log.")] = Path(
        "var/soak"
    ),
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
) -> None:
    """Soak a real vLLM: random requests, aborts, bad requests, a random decision every second.

    Among the requests: grammars, stop strings, two answers at once, LoRA adapters (two, with one
    slot), shared prefixes.

    Starts the server itself and stops it. Exit code 1 when the books do not balance, a
    guarantee broke, a policy raised, or the server's log has an error.

    hmas soak --minutes 20

    hmas soak --minutes 2 --rate 4 --seed 7 --api-servers 2 --json
    """
    from rich.console import Console

    from evals.checks.soak.report import terminal_view
    from evals.checks.soak.run import SoakOptions, run_soak

    console = Console(stderr=json_output, highlight=False)
    console.print(f"starting vLLM with the hook (1-2 minutes; log: {out / 'vllm.log'})")
    options = SoakOptions(minutes, rate, seed, api_servers)
    with _Progress(console, minutes * 60) as progress:
        report = run_soak(options, out, port=port, model=model, on_tick=progress.tick)
    text = json.dumps(report.as_json(), indent=2)
    (out / "soak.json").write_text(text + "\n", encoding="utf-8")
    console.print(terminal_view(report), markup=False, soft_wrap=True)
    if json_output:
        typer.echo(text)
    if report.problems:
        raise typer.Exit(FAILED)


class _Progress:
    """A bar on a terminal, elsewhere a line a minute."""

    def __init__(self, console: "Console", seconds: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn(),
            console=console, disable=not console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("waiting for the server", total=seconds)
        self._line_due_s = _LINE_EVERY_S

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tick(self, elapsed_s: float, clients: "Clients", steering: "Steering") -> None:
        """Show how far the soak is."""
        ends = clients.ends()
        calls = sum(counts.total() for counts in list(steering.answers.values()))
        line = (
            f"sent {clients.sent}: {ends['finished']} finished, {ends['left']} left, "
            f"{ends['refused']} refused, {ends['failed']} failed; {calls} calls"
        )
        self._bar.update(self._task, description=line, completed=elapsed_s)
        if not self._console.is_terminal and elapsed_s >= self._line_due_s:
            self._line_due_s += _LINE_EVERY_S
            self._console.print(f"{elapsed_s:4.0f} s: {line}", markup=False, soft_wrap=True)

"""How does a command name a trace? The options that several commands share."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from evals.requests.scenario import TraceFile


TraceFormat = Literal["azure", "mooncake", "burstgpt", "servegen"]
FormatOption = Annotated[
    TraceFormat | None,
    typer.Option(
        "--format",
        help="Of the trace. Default: servegen for a folder, mooncake for .jsonl, else azure.",
    ),
]
DrawOption = Annotated[
    str | None,
    typer.Option(
        metavar="hours=9..17,clients=20",
        help="Of ServeGen's clients: hours since the first midnight (default: all), so many of "
        "the clients; each may be missing.",
    ),
]


def trace_file(path: Path, form: TraceFormat | None, draw: str | None) -> "TraceFile":
    """A trace as options name it.

    Raises:
        BadParameter: `draw` is wrong, or is said of another format.
    """
    from evals.requests.readers import format_of
    from evals.requests.scenario import TraceFile
    from evals.requests.servegen import parse_draw

    file = TraceFile(path, form or format_of(path))
    if draw is None:
        return file
    if file.format != "servegen":
        raise typer.BadParameter(f"--draw {draw}: goes with --format servegen")
    try:
        return replace(file, draw=parse_draw(draw))
    except ValueError as error:
        raise typer.BadParameter(f"--draw {error}") from error

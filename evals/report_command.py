"""How are a run's tables and plots made again? `hmas eval report`, from its results alone."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import CommandError


def report(
    results: Annotated[Path, typer.Argument(help="results.json, or the folder of --out.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Where to put them; default: beside the results.")
    ] = None,
) -> None:
    """Make tables and plots of a run again: results.md, summary.csv, goodput.svg, ratio.svg.

    hmas eval report var/evals/drift

    hmas eval report results.json --out evals/results/drift

    The page with single cases (report.html) is made by the run, which knows every request.
    """
    from evals.report.files import write_tables

    file = results / "results.json" if results.is_dir() else results
    try:
        rows = json.loads(file.read_bytes())["results"]
        folder = out or file.parent
        folder.mkdir(parents=True, exist_ok=True)
        write_tables(rows, folder)
    except OSError as error:
        raise CommandError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise CommandError(
            f"{file}: {type(error).__name__} {error}: expected what `hmas eval run --json` "
            "or --out wrote"
        ) from error
    typer.echo(f"written: {folder}/results.md, summary.csv and plots", err=True)

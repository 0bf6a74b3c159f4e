"""How are tables, plots and pages made again? `hmas eval report` and `hmas eval pages`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED, CommandError


def report(
    results: Annotated[Path, typer.Argument(help="results.json, or the folder of --out.")],
    *,
    out: Annotated[
        Path | None, typer.Option(help="Where to put them; default: beside the results.")
    ] = None,
) -> None:
    """Make tables and plots of a run again: results.md, summary.csv, goodput.svg, ratio.svg.

    hmas eval report var/evals/drift

    hmas eval report results.json --out var/drift

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


def pages(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 where one differs.")
    ] = False,
) -> None:
    """Write the pages of evals/results, and the README's table, from the summaries there.

    hmas eval pages

    hmas eval pages --check
    """
    from evals.report.pages import PageError, pages_of, read_evidence

    try:
        written = pages_of(read_evidence())
    except PageError as error:
        raise CommandError(str(error)) from error
    old = {path: path.read_text("utf-8") if path.exists() else "" for path in written}
    stale = [path for path, text in written.items() if old[path] != text]
    for path in stale:
        if not check:
            path.write_text(written[path], encoding="utf-8")
        typer.echo(f"{'differs' if check else 'written'}: {path}", err=True)
    if check and stale:
        raise typer.Exit(FAILED)

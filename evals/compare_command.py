"""How is `hmas eval compare` shown? A table, or JSON; the exit code is for CI."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hmas_agents.commands.exits import FAILED

if TYPE_CHECKING:
    from rich.console import Console

    from evals.result.compare import Comparison


def compare(
    a: Annotated[Path, typer.Argument(help="What was: results.json, or the folder of --out.")],
    b: Annotated[Path, typer.Argument(help="What is.")],
    *,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Attainment that may be lost; 0.01 is a point.")
    ] = 0.01,
    arm: Annotated[str | None, typer.Option(help="This arm only.")] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Compare two runs of a suite, case by case, with intervals over seeds.

    hmas eval compare var/evals/before var/evals/after

    hmas eval compare before.json after.json --arm hmas --tolerance 0.02 --json

    Exit code 1: a case lost more than the tolerance, and hardly by chance: p of the paired t test,
    adjusted for the number of cases, is below 0.05 (with one seed the loss alone decides).
    """
    import json

    from rich.console import Console

    from evals.result.compare import compare_files
    from evals.result.metrics import rounded

    comparison = compare_files(a, b, tolerance=tolerance, arm=arm)
    for warning in comparison.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if json_output:
        document = {
            "a": str(a),
            "b": str(b),
            "tolerance": tolerance,
            "regressions": comparison.regressions,
            "cases": [asdict(case) for case in comparison.cases],
            "warnings": comparison.warnings,
        }
        typer.echo(json.dumps(rounded(document), indent=2, sort_keys=True))
    else:
        _print_table(comparison, tolerance, Console())
    if comparison.regressions:
        raise typer.Exit(FAILED)


def _print_table(comparison: "Comparison", tolerance: float, console: "Console") -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("case", "met A", "met B", "B - A, points", "p", "goodput B / A"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case in comparison.cases:
        points = case.attainment
        shown = f"{100 * points.mean:+.1f}"
        if points.n > 1:
            shown += f" ({100 * points.low:+.1f} to {100 * points.high:+.1f})"
        table.add_row(
            f"{case.scenario} {case.load:g}x {case.arm}",
            f"{case.attainment_a:.1%}",
            f"{case.attainment_b:.1%}",
            shown,
            "-" if case.p is None else f"{case.p:.3f}",
            "-" if case.goodput is None else case.goodput.text(),
            style="bold red" if case.regression else None,
        )
    console.print(table)
    console.print(
        f"{comparison.regressions} of {len(comparison.cases)} cases lost more than "
        f"{100 * tolerance:g} points of attainment and hardly by chance (in parentheses 95% "
        "intervals over seeds; p: paired t test, adjusted for the number of cases)"
    )

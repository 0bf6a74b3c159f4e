"""How is `hmas eval compare` shown? A table, or JSON; the exit code is for CI."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import JsonOption


def compare(
    a: Annotated[Path, typer.Argument(help="What was: results.json, or the folder of --out.")],
    b: Annotated[Path, typer.Argument(help="What is.")],
    *,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Attainment that may be lost; 0.01 is a point.")
    ] = 0.01,
    arm: Annotated[str | None, typer.Option(help="This arm only.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Compare two runs of a suite, case by case, with intervals over seeds.

    hmas eval compare var/evals/before var/evals/after

    hmas eval compare before.json after.json --arm hmas --tolerance 0.02 --json

    Exit code 1: a case lost more than the tolerance, and hardly by chance: p of the paired t test,
    adjusted for the number of cases, is below 0.05 (with one seed the loss alone decides).
    """
    from evals.report.sheet import Sheet, show
    from evals.report.tables import points, times
    from evals.result.compare import compare_files
    from evals.result.metrics import rounded

    comparison = compare_files(a, b, tolerance=tolerance, arm=arm)
    for warning in comparison.warnings:
        typer.echo(f"warning: {warning}", err=True)
    document = {
        "a": str(a),
        "b": str(b),
        "tolerance": tolerance,
        "regressions": comparison.regressions,
        "cases": [asdict(case) for case in comparison.cases],
        "warnings": comparison.warnings,
    }
    rows = [
        ["!" if case.regression else "", f"{case.scenario} {case.load:g}x {case.arm}",
         f"{case.attainment_a:.1%}", f"{case.attainment_b:.1%}", points(case.attainment),
         "-" if case.p is None else f"{case.p:.3f}", times(case.goodput)]
        for case in comparison.cases
    ]  # fmt: skip
    note = (
        f"{comparison.regressions} of {len(comparison.cases)} cases (!) lost more than "
        f"{100 * tolerance:g} points of attainment and hardly by chance (in parentheses 95% "
        "intervals over seeds; p: paired t test, adjusted for the number of cases)"
    )
    heads = ("", "case", "met A", "met B", "B - A, points", "p", "goodput B / A")
    show(rounded(document), json_output, Sheet("B against A", heads, rows, note, left_aligned=2))
    if comparison.regressions:
        raise typer.Exit(FAILED)

"""How are results looked at again? `hmas eval report`, `pages`, `compare` and `coverage`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import JsonOption


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

    cases, warnings = compare_files(a, b, tolerance=tolerance, arm=arm)
    worse = sum(case.regression for case in cases)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    document = {
        "a": str(a),
        "b": str(b),
        "tolerance": tolerance,
        "regressions": worse,
        "cases": [asdict(case) for case in cases],
        "warnings": warnings,
    }
    rows = [
        ["!" if case.regression else "", f"{case.scenario} {case.load:g}x {case.arm}",
         f"{case.attainment_a:.1%}", f"{case.attainment_b:.1%}", points(case.attainment),
         "-" if case.p is None else f"{case.p:.3f}", times(case.goodput)]
        for case in cases
    ]  # fmt: skip
    note = (
        f"{worse} of {len(cases)} cases (!) lost more than "
        f"{100 * tolerance:g} points of attainment and hardly by chance (in parentheses 95% "
        "intervals over seeds; p: paired t test, adjusted for the number of cases)"
    )
    heads = ("", "case", "met A", "met B", "B - A, points", "p", "goodput B / A")
    show(rounded(document), json_output, Sheet("B against A", heads, rows, note, left_aligned=2))
    if worse:
        raise typer.Exit(FAILED)


def coverage(
    *,
    draws: Annotated[int, typer.Option(min=100, help="Experiments for each kind of data.")] = 4000,
    comparisons: Annotated[
        int, typer.Option(min=10, help="Pairs of runs of one arm, 20 seeds each.")
    ] = 100,
    json_output: JsonOption = False,
) -> None:
    """Count how often 95% intervals hold a truth that is known.

    hmas eval coverage

    Means, paired differences and ratios of figures drawn from known distributions, and the
    difference of one arm on disjoint seeds, which is 0. About half a minute.
    """
    from evals.checks.coverage import SEEDS, coverage_of_runs
    from evals.checks.coverage import coverage as count
    from evals.report.sheet import Sheet, show

    table, n = count(draws), max(SEEDS)
    runs = coverage_of_runs(comparisons, n)
    rows = [[row[0], str(row[1]), *(f"{share:.1%}" for share in row[2:])]
            for row in table.itertuples(index=False)]  # fmt: skip
    note = (
        f"Intervals that hold the truth, of {draws:,} each (95% is right). One arm on two sets "
        f"of {n} seeds: {runs:.0%} of {comparisons} intervals of the difference hold 0."
    )
    document = {"draws": draws, "data": table.to_dict("records"), "runs": runs}
    show(document, json_output, Sheet("Coverage", tuple(table.columns), rows, note))

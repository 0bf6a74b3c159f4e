"""How is `hmas eval coverage` shown? A table in Markdown, or JSON."""

from typing import Annotated

import typer


def coverage(
    *,
    draws: Annotated[int, typer.Option(min=100, help="Experiments for each kind of data.")] = 4000,
    comparisons: Annotated[
        int, typer.Option(min=10, help="Pairs of runs of one arm, 20 seeds each.")
    ] = 100,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output.")
    ] = False,
) -> None:
    """Count how often 95% intervals hold a truth that is known.

    hmas eval coverage

    Means, paired differences and ratios of figures drawn from known distributions, and the
    difference of one arm on disjoint seeds, which is 0. About half a minute.
    """
    import json

    from evals.checks.coverage import SEEDS, coverage_of_runs
    from evals.checks.coverage import coverage as count

    table, n = count(draws), max(SEEDS)
    runs = coverage_of_runs(comparisons, n)
    if json_output:
        document = {"draws": draws, "data": table.to_dict("records"), "runs": runs}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo("| data | n | mean | difference | ratio |\n|---|---:|---:|---:|---:|")
    for row in table.itertuples(index=False):
        shares = " | ".join(f"{share:.1%}" for share in row[2:])
        typer.echo(f"| {row[0]} | {row[1]} | {shares} |")
    typer.echo(
        f"\nIntervals that hold the truth, of {draws:,} each (95% is right). One arm on two sets "
        f"of {n} seeds: {runs:.0%} of {comparisons} intervals of the difference hold 0."
    )

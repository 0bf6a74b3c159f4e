"""How is `hmas eval coverage` shown? A table, or JSON."""

from typing import Annotated

import typer

from hmas_agents.commands.options import JsonOption


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

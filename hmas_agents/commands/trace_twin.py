"""`hmas trace twin`: how much did the twin look at, how fast, and did its intervals hold?"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hmas_agents.commands.options import ConfigOption, JsonOption, read_config
from hmas_agents.follow_up import Reach, reached
from hmas_agents.forms import percent
from hmas_agents.ledger.reader import LedgerReader
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord
from hmas_agents.twin.prediction import COVERAGE

FIGURES = ("candidates", "left_out", "futures", "forecasts", "work_s", "wall_s")


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of the twin's word in some decisions.

    Attributes:
        decisions: over the long horizon, in which it made forecasts.
        candidates, left_out, futures, forecasts, work_s, wall_s: of one decision: median, and the
            99th percentile; of `futures` the first, since fewer are worse. `left_out` are not
            tried because forecasts were dear; `work_s` is counted, about the time of a quiet core.
        settled: predictions of which 30 requests have shown what came.
        inside, under, above: how many of these came inside their interval, under or above it.
        coverage, coverage_95: share inside, and its exact 95% interval (Clopper and Pearson 1934).
        stated: the share that the intervals promise.
    """

    decisions: int
    candidates: tuple[float, float]
    left_out: tuple[float, float]
    futures: tuple[float, float]
    forecasts: tuple[float, float]
    work_s: tuple[float, float]
    wall_s: tuple[float, float]
    settled: int
    inside: int
    under: int
    above: int
    coverage: float | None
    coverage_95: tuple[float, float] | None
    stated: float = COVERAGE


def judge_twin(
    ledgers: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Ledgers; ledger.path by default."),
    ] = None,
    *,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Say how good the twin's predictions were, over all runs of some ledgers.

    Try:

      hmas trace twin                            of the ledger in hmas.toml

      hmas trace twin var/evals/*/ledger-*.sqlite --json | jq .coverage
    """
    records: list[DecisionRecord] = []
    for path in ledgers or [read_config(config).ledger.path]:
        with LedgerReader(path) as reader:
            records += [stored.record for stored in reader.list_decisions(None, "long")]
    told = judge(records)
    if as_json:
        typer.echo(to_json(asdict(told)))
        return
    typer.echo(f"decisions with forecasts: {told.decisions}")
    if not told.decisions:
        return
    for name in FIGURES:
        median, most = getattr(told, name)
        form = ".2f" if name.endswith("_s") else ".0f"
        typer.echo(f"{name} of one: p50 {median:{form}}, p{_far(name)} {most:{form}}")
    if told.coverage is None or told.coverage_95 is None:
        typer.echo("no prediction has met 30 requests yet")
        return
    low, high = told.coverage_95
    typer.echo(
        f"intervals: {told.inside} of {told.settled} held, {percent(told.coverage)} "
        f"(95% sure: {percent(low)} to {percent(high)}; they state {percent(told.stated)}); "
        f"{told.under} came under, {told.above} above"
    )


def judge(records: Iterable[DecisionRecord]) -> Judged:
    """Of decisions over the long horizon."""
    with_twin = [each for each in records if each.twin.get("forecasts")]
    ends = [_reach(each) for each in with_twin]
    settled = sum(end is not None for end in ends)
    inside = ends.count("inside")
    coverage_95 = None
    if settled:
        from scipy.stats import binomtest  # half a second that other commands need not wait

        found = binomtest(inside, settled).proportion_ci(0.95)
        coverage_95 = float(found.low), float(found.high)

    def typical(name: str) -> tuple[float, float]:
        # A ledger of an older version does not know every figure.
        values = [float(each.twin[name]) for each in with_twin if name in each.twin] or [0.0]
        return float(np.quantile(values, 0.5)), float(np.quantile(values, _far(name) / 100))

    return Judged(
        len(with_twin), typical("candidates"), typical("left_out"), typical("futures"),
        typical("forecasts"), typical("work_s"), typical("wall_s"),
        settled, inside, ends.count("under"), ends.count("above"),
        inside / settled if settled else None, coverage_95,
    )  # fmt: skip


def _far(name: str) -> int:
    return 1 if name == "futures" else 99


def _reach(record: DecisionRecord) -> Reach | None:
    if record.realised is None:
        return None
    low, high = record.predicted_low, record.predicted_high
    return reached(low, high, record.realised, record.realised_requests or 0)

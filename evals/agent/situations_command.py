"""How is `hmas eval situations` shown? Tables, JSON, and a page. Wiring only."""

from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.options import JsonOption

SUITES = (Path("evals/suites/steady.toml"), Path("evals/suites/drift.toml"))


def situations(
    suites: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SUITE.toml...", help="Where from; default: steady and drift."),
    ] = None,
    *,
    seeds: Annotated[int, typer.Option(min=1, help="Blocks of the test half.")] = 10,
    learn_from: Annotated[
        int, typer.Option(min=2, help="Blocks of the development half to learn from.")
    ] = 10,
    rows: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Of what was gathered; more seeds add to it.")
    ] = Path("var/evals/situations"),
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For situations.json; the page comes beside it."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Who chooses the best setting, and what is it worth to name some to the twin?

    Situations come from a suite's test half; what learns, learns from its development half. What
    each setting is truly worth is found with what really comes in the next minute.

    hmas eval situations

    hmas eval situations evals/suites/steady.toml --seeds 2 --learn-from 2 --json

    hmas eval situations --seeds 20 --out evals/results/situations
    """
    import json

    from evals.agent.situation_run import run_situations
    from evals.agent.situation_scores import document, page, sheets
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.suite.suite import load_suite
    from hmas_agents.config import Config

    control = Config().control
    start = "+".join([f"fixed-{control.start_policy}", *control.start_rules])
    every = [load_suite(path) for path in suites or SUITES]
    with CaseProgress() as progress:
        found = run_situations(every, seeds, learn_from, rows, jobs, progress)
    said = document(found, start, learn_from)
    show(said, json_output, *sheets(said))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(said, indent=1)
        (out / "situations.json").write_text(text + "\n", encoding="utf-8")
        beside = out.with_suffix(".md")
        beside.write_text(page(said), encoding="utf-8")
        typer.echo(f"written: {out / 'situations.json'}, {beside}", err=True)

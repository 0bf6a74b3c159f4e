"""`hmas trace`: what did the agents decide, why, and was it right? Reads the ledger."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hmas_agents.commands.options import ConfigOption, JsonOption, LedgerOption, read_config
from hmas_agents.commands.trace_story import clock, percent, tell
from hmas_agents.ledger.reader import LedgerReader, StoredDecision
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import Horizon

app = typer.Typer(help="Read the decision ledger.", no_args_is_help=True)

RunOption = Annotated[int | None, typer.Option("--run", help="This run only; `list` shows them.")]
HorizonOption = Annotated[
    str | None, typer.Option("--horizon", help="long or short only.", metavar="long|short")
]


@app.command("list")
def list_decisions(
    *,
    run: RunOption = None,
    horizon: HorizonOption = None,
    policy: Annotated[str | None, typer.Option(help="Only decisions for this policy.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 30,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """List decisions, oldest first, one line each.

    Try:

      hmas trace list --horizon long           the choices of policy

      hmas trace list --run 3 --limit 100      one run's

      hmas trace list --json | jq .[].policy
    """
    with _open(ledger, config) as reader:
        found = reader.list_decisions(run, _horizon(horizon), policy, limit)
        if as_json:
            typer.echo(to_json([_row(stored) for stored in found]))
            return
        for item in reader.list_runs():
            if run in {None, item.id}:
                counts = f"{item.decisions} decisions, {item.outcomes} requests"
                typer.echo(f"run {item.id}  {item.label or '(no label)'}  {counts}")
    table = Table("id", "run", "time", "horizon", "mode", "trigger", "decision", box=None)
    for name in ("epoch", "predicted", "realised", "faults"):
        table.add_column(name, justify="right")
    for stored in found:
        record = stored.record
        table.add_row(
            str(stored.id),
            str(stored.run_id),
            clock(record.at_s),
            record.horizon,
            record.mode,
            record.trigger,
            _decision_text(stored),
            f"{record.epoch_before}>{record.epoch_after}",
            percent(record.predicted),
            percent(record.realised),
            str(len(record.faults) or ""),
        )
    Console().print(table)


@app.command("show")
def show_decision(
    decision: Annotated[str, typer.Argument(help="An id from `hmas trace list`, or `last`.")],
    *,
    run: RunOption = None,
    horizon: HorizonOption = None,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell one decision as a story: seen, asked, proposed, done, and what came of it.

    Try:

      hmas trace show last --horizon long

      hmas trace show 42 --json
    """
    with _open(ledger, config) as reader:
        if decision == "last":
            newest = reader.list_decisions(run, _horizon(horizon), limit=1)
            if not newest:
                raise LedgerError(f"{reader.path}: no such decision yet")
            stored = newest[0]
        elif decision.isdecimal():
            stored = reader.get_decision(int(decision))
        else:
            raise typer.BadParameter(f"{decision!r} is neither an id nor `last`")
    if as_json:
        typer.echo(to_json(_row(stored)))
        return
    tell(stored, Console())


@app.command("export")
def export(
    run: RunOption = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output by default.", metavar="FILE")
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Write runs, decisions and request outcomes as JSON lines.

    Try:

      hmas trace export --run 3 --out run3.jsonl

      hmas trace export | jq 'select(.kind == "outcome" and (.met | not))'
    """
    with _open(ledger, config) as reader:
        if out is None:
            for line in reader.export(run):
                sys.stdout.write(line + "\n")
            return
        count = 0
        with out.open("w", encoding="utf-8") as file:
            for line in reader.export(run):
                file.write(line + "\n")
                count += 1
    typer.echo(f"{out}: {count} lines")


def _open(ledger: Path | None, config: Path | None) -> LedgerReader:
    return LedgerReader(ledger or read_config(config).ledger.path)


def _horizon(name: str | None) -> Horizon | None:
    match name:
        case None | "long" | "short":
            return name
    raise typer.BadParameter(f"--horizon is long or short, not {name!r}")


def _decision_text(stored: StoredDecision) -> str:
    record = stored.record
    policy = str(record.chosen.get("policy", ""))
    changed = [] if policy in {"", record.policy_before} else [f"{record.policy_before} > {policy}"]
    calls = [call.tool for call in record.tool_calls if call.tool != "switch_policy"]
    return ", ".join(changed + calls) or f"keep {record.policy_before}".strip()


def _row(stored: StoredDecision) -> dict[str, Any]:
    """The whole decision, with its id and its chosen policy at the top."""
    head = {"id": stored.id, "run_id": stored.run_id}
    return head | {"policy": stored.record.chosen.get("policy", "")} | asdict(stored.record)

"""`hmas trace`: what did the agents decide, why, and was it right? Reads the ledger."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hmas_agents.commands.options import ConfigOption, JsonOption, LedgerOption, read_config
from hmas_agents.commands.trace_story import tell
from hmas_agents.commands.trace_twin import judge_twin
from hmas_agents.forms import clock, decision_text, percent, read_clock
from hmas_agents.ledger.reader import LedgerReader, StoredDecision
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord, Horizon

app = typer.Typer(help="Read the decision ledger.", no_args_is_help=True)

app.command("twin")(judge_twin)
WIDE_COLUMNS = 100  # a terminal so wide has room for dates and epochs

RunOption = Annotated[int | None, typer.Option("--run", help="This run only; `list` shows them.")]
HorizonOption = Annotated[Horizon | None, typer.Option("--horizon", help="Of this horizon only.")]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Decided then or later.", metavar="TIME")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Decided then or before.", metavar="TIME")
]


@app.command("list")
def list_decisions(
    *,
    run: RunOption = None,
    horizon: HorizonOption = None,
    policy: Annotated[str | None, typer.Option(help="Only decisions for this policy.")] = None,
    trigger: Annotated[
        str | None,
        typer.Option(help="Only this trigger: tick, start, rollback, person, or an alarm."),
    ] = None,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Only those that changed something (or would have)."),
    ] = False,
    faults: Annotated[
        bool, typer.Option("--faults", help="Only those in which something went wrong.")
    ] = False,
    since: SinceOption = None,
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 30,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """List decisions, oldest first, one line each.

    Times are 15m (before the newest decision), 2026-11-22T14:05 (UTC), or seconds on the
    engine's clock. Try:

      hmas trace list --horizon long             the choices of policy

      hmas trace list --changed --since 15m      what was changed lately

      hmas trace list --trigger rate_up          what the alarm led to

      hmas trace list --run 3 --limit 100        one run's

      hmas trace list --json | jq .[].policy
    """
    with _open(ledger, config, run) as reader:
        found = reader.list_decisions(
            run,
            horizon,
            policy,
            limit,
            trigger=trigger,
            changed=changed,
            faults=faults,
            since_s=_time(reader, run, since, "--since"),
            until_s=_time(reader, run, until, "--until"),
        )
        if as_json:
            typer.echo(to_json([_row(stored, with_situation=False) for stored in found]))
            return
        runs = [item for item in reader.list_runs() if run in {None, item.id}]
    for item in runs:
        counts = f"{item.decisions} decisions, {item.outcomes} requests"
        mode = f", {item.config.get('control', {}).get('mode', '?')} mode"
        typer.echo(f"run {item.id}  {item.label or '(no label)'}{mode}  {counts}")
    if not found:
        typer.echo("no decision fits")
        return
    _print_list(found)


def _print_list(found: list[StoredDecision]) -> None:
    """One line per decision. What does not fit is cut; in 80 columns there are fewer columns."""
    console = Console()
    is_wide = console.width >= WIDE_COLUMNS
    days = {clock(stored.record.at_s, "%m-%d") for stored in found}
    form = "%H:%M:%S" if len(days) == 1 and not is_wide else "%m-%d %H:%M:%S"
    columns: dict[str, Callable[[StoredDecision], str]] = {
        "id": lambda stored: str(stored.id),
        "run": lambda stored: str(stored.run_id),
        "time": lambda stored: clock(stored.record.at_s, form),
        "tick": lambda stored: _tick(stored.record),
        "decision": lambda stored: decision_text(stored.record),
        "epoch": _epochs,
        "pred.": lambda stored: percent(stored.record.predicted),
        "real": lambda stored: percent(stored.record.realised),
        "faults": lambda stored: str(len(stored.record.faults) or ""),
    }
    if len({stored.run_id for stored in found}) == 1:
        del columns["run"]
    if not is_wide:
        del columns["epoch"]
    if not any(stored.record.faults for stored in found):
        del columns["faults"]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in {"epoch", "pred.", "real", "faults"} else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=int(name == "decision") or None,
            max_width=12 if name == "tick" and not is_wide else None,
        )
    for stored in found:
        table.add_row(*(Text(cell(stored)) for cell in columns.values()))
    unlimited = console.options.update(max_width=10_000)
    table.expand = console.measure(table, options=unlimited).maximum > console.width
    console.print(table)


def _tick(record: DecisionRecord) -> str:
    """`long`, or `short start`: the horizon, and the trigger where it is no usual tick."""
    return record.horizon + ("" if record.trigger == "tick" else f" {record.trigger}")


@app.command("show")
def show_decision(
    decision: Annotated[str, typer.Argument(help="An id from `hmas trace list`, or `last`.")],
    *,
    run: RunOption = None,
    horizon: HorizonOption = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="The prompt as sent, message by message, too.")
    ] = False,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Tell one decision as a story: seen, asked, answered, checked, done, and what came of it.

    Try:

      hmas trace show last --horizon long

      hmas trace show 42 --prompt              with the prompt as it was sent

      hmas trace show 42 --json | jq .situation
    """
    with _open(ledger, config, run) as reader:
        if decision == "last":
            newest = reader.list_decisions(run, horizon, limit=1)
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
        label = next((r.label for r in reader.list_runs() if r.id == stored.run_id), "")
        rolled_back_by = reader.rolled_back_by(stored)
    tell(stored, Console(), label=label, with_prompt=prompt, rolled_back_by=rolled_back_by)


@app.command("export")
def export(
    run: RunOption = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; standard output by default.", metavar="FILE")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            "--cases",
            help="Write long decisions as cases of the policy agent instead.",
            metavar="FILE",
        ),
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Write runs, decisions and request outcomes as JSON lines, or decisions as cases.

    Try:

      hmas trace export --run 3 --out run3.jsonl

      hmas trace export | jq 'select(.kind == "outcome" and (.met | not))'

      hmas trace export --run 3 --cases run3-cases.jsonl.gz
    """
    if cases is not None and out is not None:
        raise typer.BadParameter("--cases names the file itself: leave --out away")
    with _open(ledger, config, run) as reader:
        if cases is not None:
            from hmas_agents.cases import export_cases

            typer.echo(f"{cases}: {export_cases(reader, run, cases)} cases, without labels")
            return
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


@contextmanager
def _open(ledger: Path | None, config: Path | None, run: int | None) -> Iterator[LedgerReader]:
    """The ledger, if it holds the run that was named."""
    with LedgerReader(ledger or read_config(config).ledger.path) as reader:
        if run is not None:
            reader.get_run(run)
        yield reader


def _time(reader: LedgerReader, run: int | None, text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        return read_clock(text, reader.newest_decision_s(run))
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {error}") from error


def _epochs(stored: StoredDecision) -> str:
    before, after = stored.record.epoch_before, stored.record.epoch_after
    return str(before) if before == after else f"{before}>{after}"


def _row(stored: StoredDecision, *, with_situation: bool = True) -> dict[str, Any]:
    """The whole decision, with its id and its chosen policy at the top."""
    head = {"id": stored.id, "run_id": stored.run_id}
    row = head | {"policy": stored.record.chosen.get("policy", "")} | asdict(stored.record)
    if not with_situation:  # a window of requests for each row is no list
        del row["situation"]
    return row

"""`hmas why`: why did one request go as it did? Reads the ledger, asks the twin."""

from dataclasses import asdict
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hmas_agents.commands.exits import CommandError
from hmas_agents.commands.options import ConfigOption, JsonOption, LedgerOption, read_config
from hmas_agents.commands.why_text import tell
from hmas_agents.explain.explanation import LEAD_S, Explanation, explain
from hmas_agents.forms import decision_text
from hmas_agents.ledger.reader import LedgerReader
from hmas_agents.ledger.requests import StoredOutcome, find_requests, pick_request
from hmas_agents.ledger.writer import to_json
from serving.contracts import encode
from serving.policies import parse_policy

SHOWN_MATCHES = 8


def why(
    request: Annotated[
        str | None, typer.Argument(help="A request's id, or how it begins.", metavar="REQUEST_ID")
    ] = None,
    *,
    pick: Annotated[
        Literal["missed", "worst", "met"] | None,
        typer.Option(help="Instead of an id: the newest missed or met one, or the latest by far."),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant (with --pick).")] = None,
    run: Annotated[int | None, typer.Option(help="This run only; else the newest match.")] = None,
    twin: Annotated[
        bool, typer.Option("--twin/--no-twin", help="Replay it under other policies, or not.")
    ] = True,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Replay under this one, also as `edf:kappa=3` (repeatable); else all that the "
            "run allowed."
        ),
    ] = None,
    lead_s: Annotated[
        float, typer.Option("--lead", min=0, help="The replay begins so many seconds before.")
    ] = LEAD_S,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Explain one request: its timeline, what it waited for, and how it could have gone.

    What a client called abc, vLLM calls cmpl-abc-0-1a2b3c4d: abc finds it, and with n > 1 its
    answers, 0_cmpl-abc-0-1a2b3c4d and so on. Try:

      hmas why abc                              one request

      hmas why --pick missed --tenant acme      the newest that missed its SLO

      hmas why --pick worst --no-twin           at once, without a replay

      hmas why abc --policy edf:kappa=3 --policy density

      hmas why abc --json | jq .twin.replays
    """
    _check(request, pick, tenant, policy or [])
    with LedgerReader(ledger or read_config(config).ledger.path) as reader:
        if run is not None:
            reader.get_run(run)
        if request is None:
            assert pick is not None
            found = pick_request(reader, pick, run, tenant)
            if found is None:
                of = "" if tenant is None else f" of tenant {tenant!r}"
                _leave(reader, f"no request{of} {'met' if pick == 'met' else 'missed'} its SLO")
        else:
            found = _found(reader, request, run)
        bar = ReplayBar(with_bar=twin)
        with bar.progress:
            told = explain(
                reader,
                found,
                lead_s=lead_s,
                with_twin=twin,
                policies=policy or (),
                on_progress=bar.on_progress,
            )
    if as_json:
        typer.echo(to_json(as_dict(told)))
    else:
        tell(told, Console())


def as_dict(told: Explanation) -> dict[str, Any]:
    """Everything, JSON-ready; of a decision what names it, since `hmas trace show` has the rest."""
    return {
        "run_id": told.run_id,
        "run_label": told.run_label,
        "mode": told.mode,
        "outcome": encode(told.outcome),
        "moments": [asdict(moment) for moment in told.moments],
        "targets": [
            asdict(target) | {"met": target.met, "over_s": target.over_s} for target in told.targets
        ],
        "lived_under": [asdict(phase) for phase in told.lived_under],
        "decisions": [
            {
                "id": stored.id,
                "at_s": stored.record.at_s,
                "horizon": stored.record.horizon,
                "mode": stored.record.mode,
                "decision": decision_text(stored.record),
            }
            for stored in told.decisions
        ],
        "company": asdict(told.company),
        "twin": None if told.twin is None else asdict(told.twin),
        "notes": told.notes,
    }


class ReplayBar:
    """How far the twin is, on standard error; nothing where that is no terminal."""

    def __init__(self, *, with_bar: bool) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("the twin serves it under {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed} requests"),
            TimeElapsedColumn(),
            console=console,
            disable=not (with_bar and console.is_terminal),
            transient=True,
        )
        self._task = self.progress.add_task("... (starting the simulator)", total=None)

    def on_progress(self, name: str, finished: int, total: int) -> None:
        """`finished` of `total` requests are through under `name`."""
        self.progress.update(self._task, description=name, completed=finished, total=total)


def _check(request: str | None, pick: str | None, tenant: str | None, policies: list[str]) -> None:
    if (request is None) == (pick is None):
        raise typer.BadParameter("give a request's id or --pick, one of the two")
    if request is not None and not request.strip():
        raise typer.BadParameter("the request's id is empty")
    if tenant is not None and pick is None:
        raise typer.BadParameter("--tenant goes with --pick")
    for name in policies:
        try:
            parse_policy(name)
        except ValueError as error:
            raise typer.BadParameter(f"--policy {name!r}: {error}") from error


def _found(reader: LedgerReader, text: str, run: int | None) -> StoredOutcome:
    """The request of that id; of the same id in several runs the newest."""
    matches = find_requests(reader, text, run)
    if not matches:
        _leave(reader, f"no request {text!r}" + ("" if run is None else f" in run {run}"))
    ids = list(dict.fromkeys(match.outcome.request_id for match in matches))
    if len(ids) > 1:
        more = f" and {len(ids) - SHOWN_MATCHES} more" if len(ids) > SHOWN_MATCHES else ""
        several = "is the beginning of {} requests"
        asked = {name.partition("_")[2] for name in ids}
        if len(asked) == 1 and asked != {""}:
            several = "has {} answers, each a request of the engine"
        raise typer.BadParameter(
            f"{text!r} {several.format(len(ids))}: "
            f"{', '.join(ids[:SHOWN_MATCHES])}{more}; write one of them"
        )
    return matches[0]


def _leave(reader: LedgerReader, what: str) -> NoReturn:
    """Say that there is none and how to look for it; ends the command."""
    runs = reader.list_runs()
    kept = runs[-1].config.get("ledger", {}).get("max_outcomes") if runs else None
    newest = "" if kept is None else f" (it keeps the newest {kept:,})"
    raise CommandError(
        f"{reader.path}: {what}; it holds {sum(r.outcomes for r in runs)} requests"
        f"{newest}, and only those that have ended. Their ids: "
        "hmas trace export | jq -r 'select(.kind == \"outcome\").request_id'"
    )

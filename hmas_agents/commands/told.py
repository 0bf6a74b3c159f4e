"""`hmas told`, `hmas untell`: what is in force by words, and how is it taken back?"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import ConfigOption, JsonOption, LedgerOption, read_config
from hmas_agents.commands.wheel import record_by_person, whoever_is_here
from hmas_agents.config import Config
from hmas_agents.forms import percent
from hmas_agents.intent.shown import local, printable, told_text
from hmas_agents.intent.told import Told, ToldChange, ToldStore, told_path
from hmas_agents.ledger import LedgerReader
from hmas_agents.ledger.requests import attained, newest_outcome_s
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord, ToolCall

NEWEST = 200
LONGEST_S = 3600.0
Measured = list[list[dict[str, Any]]]  # before and since; of whom it is about, and the others


def told(
    *,
    every: Annotated[
        bool, typer.Option("--all", help="What has ended, was declined or not clear, too.")
    ] = False,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """List what was told: what is in force or to come, and what waits for an answer.

    Of what is in force it says what the twin foresaw, and attainment as measured: as long before
    it began as since, of requests that have left.

    Try:

      hmas told

      hmas told --all                    what is over, too

      hmas told --json | jq '.[].changes'
    """
    found = list_told(read_config(config, {"ledger.path": ledger}).ledger.path, every=every)
    if as_json:
        typer.echo(to_json(found))
        return
    if not found:
        typer.echo("nothing is in force by words; `hmas told --all` lists what was")
    for each in found:
        head = f"{each['id']}  {each['at']}  {each['by']}  {each['state']}  {each['text']}"
        typer.echo(printable(head))
        if each["state"] == "waiting":
            typer.echo(f"   go on with: hmas tell --go-on {each['id']}")
        for line in each["lines"]:
            typer.echo(printable(f"   {line}"))


def list_told(ledger: Path, *, every: bool = False) -> list[dict[str, Any]]:
    """What was told beside a ledger, oldest first, JSON-ready; what is open, or all.

    `measured` has `Measured` by number of the change, `lines` what a person reads of it.

    Raises:
        ToldError, LedgerError: a file cannot be used.
    """
    path = told_path(ledger)
    if not path.exists():
        return []
    with ToldStore(path) as store:
        found = [each for each in store.texts(NEWEST) if every or _is_open(each)]
    brought = _brought(ledger, found)
    return [
        asdict(each)
        | {
            "changes": [_change(one) for one in each.changes],
            "at": local(each.at_s),
            "measured": brought[each.id],
            "lines": list(_lines(each, brought[each.id])),
        }
        for each in found
    ]


def _change(one: ToldChange) -> dict[str, Any]:
    return asdict(one) | {"change": one.change.model_dump(by_alias=True, exclude_none=True)}


def _lines(text: Told, measured: dict[int, Measured]) -> Iterator[str]:
    if text.note:
        yield f"{'preview: ' * (text.state == 'approved')}{text.note}"
    for one in text.changes:
        state = one.state or "no controller has taken it up yet"
        yield f"{told_text(one)}   {state}{f': {one.note}' * bool(one.note)}"
        if one.number in measured:
            yield _measured_text(one, measured[one.number])


def _brought(ledger: Path, found: list[Told]) -> dict[int, dict[int, Measured]]:
    """By text and change: attainment of whom it is about, and of the others, before and since.

    Before: the time before it began that is as long as it has been in force, at most an hour.
    """
    known: dict[int, dict[int, Measured]] = {each.id: {} for each in found}
    if not ledger.exists():
        return known
    with LedgerReader(ledger) as reader:
        newest_s = newest_outcome_s(reader)
        for change in (change for each in found for change in each.changes):
            ends = (change.until_s, change.revoked_s, newest_s)
            end_s = min(end for end in ends if end is not None)
            length_s = min(end_s - change.from_s, LONGEST_S)
            if change.state not in {"in force", "ended"} or length_s <= 0:
                continue
            whose = change.change.tenant, change.change.slo_class
            spans = (change.from_s - length_s, change.from_s), (end_s - length_s, end_s)
            known[change.told][change.number] = [
                [asdict(part) for part in attained(reader, *span, *whose)] for span in spans
            ]
    return known


def _measured_text(change: ToldChange, measured: Measured) -> str:
    (own, others), (own_now, others_now) = measured
    names = [name for name in (change.change.tenant, change.change.slo_class) if name is not None]
    shares = [(", ".join(names) or "all", own, own_now), ("others", others, others_now)]
    said = [
        f"{name} {percent(before['share'])} -> {percent(since['share'])}"
        for name, before, since in shares
        if before["requests"] or since["requests"]
    ]
    counted = own["requests"] + others["requests"], own_now["requests"] + others_now["requests"]
    requests = f"of {counted[0]} requests before and {counted[1]} since"
    return f"measured: {', '.join(said) or '-'}, {requests}"


def untell(
    number: Annotated[int, typer.Argument(help="Of `hmas told`.", min=1)],
    *,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Take back what was told, whatever of it is in force or still to come.

    The controller ends it at its next tick. Exit code 1: it was over, or never in force.

      hmas untell 3
    """
    take_back(read_config(config, {"ledger.path": ledger}), number)
    typer.echo(
        to_json({"told": number, "taken_back": True})
        if as_json
        else f"{number} is taken back; the controller ends it at its next tick"
    )


def take_back(settings: Config, number: int) -> None:
    """End what was told as this number, and record it.

    Raises:
        ToldError, CommandError: nothing of it is in force or to come.
    """
    path = told_path(settings.ledger.path)
    if not path.exists():
        raise CommandError(f"{path}: nothing was told")
    with ToldStore(path) as store:
        text = store.get(number)
        if not _is_open(text):
            state = "over" if text.state == "approved" else text.state
            raise CommandError(f"{number} is not in force: it is {state}", FAILED)
        who, now_s = whoever_is_here(), time.time()
        if text.state == "waiting":
            store.settle(number, "declined", f"taken back by {who}")
        else:
            store.revoke(number, now_s)
    record_by_person(settings, _record(text, who, now_s), "untell")


def _is_open(text: Told) -> bool:
    if text.state != "approved":
        return text.state == "waiting"
    return text.revoked_s is None and any(each.state != "ended" for each in text.changes)


def _record(text: Told, who: str, now_s: float) -> DecisionRecord:
    lines = [f"-{told_text(each)}" for each in text.changes] or ["untell"]
    call = ToolCall("untell", {"told": text.id, "by": who, "changes": lines}, True, "taken back")
    return DecisionRecord(
        horizon="short", at_s=now_s, mode="act", trigger="person,untell", state={}, epoch_before=0,
        chosen={"untell": {"by": who}}, reason=f"hmas untell {text.id}, asked by {who}",
        tool_calls=[call],
    )  # fmt: skip

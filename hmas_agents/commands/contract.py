"""`hmas contract`: what was promised to which tenant, and how is that changed while it runs?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.hand import Begin, by_hand
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    TokenOption,
    UrlOption,
    read_config,
)
from hmas_agents.forms import clock
from hmas_agents.ledger import LedgerReader
from hmas_agents.ledger.writer import to_json
from serving.contracts import SLO, Ack, ContractChange, ContractInForce, encode
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import load_contract

app = typer.Typer(
    help="Tenants, SLO classes, keys and quotas: show, check and change them.",
    no_args_is_help=True,
)
FileArgument = Annotated[
    Path, typer.Argument(help="As serving/contracts/contract.toml.", metavar="FILE")
]


@app.command("show")
def show(
    *,
    history: Annotated[
        bool, typer.Option("--history", help="The changes that the ledger has, instead.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the contract in force, since when and by whom.

    Try:

      hmas contract show

      hmas contract show --history                    who changed what, and when

      hmas contract show --json | jq .contract.tenants
    """
    from serving.engines.live import read_token
    from serving.fleet.connect import connect

    given = {"engine.url": url, "engine.token_file": token_file, "ledger.path": ledger}
    read = read_config(config, given)
    if history:
        _show_history(read.ledger.path, as_json=as_json)
        return
    held = connect(read.engine.url, read_token(read.engine.token_file)).contract()
    if as_json:
        typer.echo(to_json(encode(held)))
    else:
        Console().print(_shown(held))


@app.command("check")
def check(file: FileArgument) -> None:
    """Say whether a file is a contract, without any server; errors name line and key.

    hmas contract check contract.toml
    """
    contract = load_contract(file)
    keys = sum(len(terms.api_key_hashes) for terms in contract.tenants.values())
    typer.echo(
        f"{file}: a contract of {len(contract.tenants)} tenants with {keys} API keys, and "
        f"{len(contract.class_names)} SLO classes"
    )


@app.command("apply")
@by_hand
def apply(begin: Begin, file: FileArgument) -> None:
    """Put a file in force on the running server: show what changes, ask, do it, record it.

    Requests that are inside keep the targets they came with. A file that does not fit changes
    nothing. A restart of the server begins with its own --contract again.

      hmas contract apply contract.toml

      hmas contract apply contract.toml --yes --reason "acme pays for more"
    """
    contract = load_contract(file)
    hand = begin("contract")
    change = ContractChange(contract, hand.engine.contract().epoch + 1, hand.who, check_only=True)
    wanted = hand.engine.apply_contract(change)
    if not wanted.accepted:
        raise CommandError(f"{file}: the engine refused: {wanted.reason}", FAILED)
    if not wanted.changes:
        typer.echo(to_json({"changes": []}) if hand.as_json else f"{file}: in force already")
        return
    lines = list(wanted.changes)

    def act() -> Ack:
        ack = hand.engine.apply_contract(
            ContractChange(contract, change.epoch, hand.who)
        )
        return Ack(ack.accepted, ack.epoch, ack.reason)

    hand.do(lines, act, changed=lines, told={
        "file": str(file), "changes": lines, "epochs": [wanted.epoch_before, change.epoch],
    })  # fmt: skip


def _show_history(path: Path, *, as_json: bool) -> None:
    with LedgerReader(path) as reader:
        found = [stored.record for stored in reader.list_decisions(trigger="contract")]
    rows = [
        {**call.args, "at_s": record.at_s, "reason": record.reason, "accepted": call.accepted}
        for record in found
        for call in record.tool_calls
        if call.tool == "contract"
    ]
    if as_json:
        typer.echo(to_json(rows))
        return
    if not rows:
        typer.echo(f"{path}: no change of a contract is recorded")
    for row in rows:
        before, after = row["epochs"]
        done = f"{before} > {after}" if row["accepted"] else f"{before}, refused"
        typer.echo(f"{clock(row['at_s'])}  contract {done}, {row['reason']}")
        for line in row["changes"]:
            typer.echo(f"  {line}")


def _shown(held: ContractInForce) -> Group:
    contract = held.contract
    since = f"since {clock(held.since_s)}, by {held.by}" if held.since_s else "since the start"
    believed = "believed" if contract.believe_clients else "not believed"
    head = f"contract {held.epoch}, {since}; clients that claim a tenant are {believed}"
    if held.keys:
        needed = "needed" if contract.require_keys else "not needed"
        head += f"; an API key is {needed}"
    tenants = Table("tenant", box=None)
    for name in ("weight", "floor"):
        tenants.add_column(name, justify="right")
    tenants.add_column("classes")
    for name in ("max waiting", "tokens/min", "keys"):
        tenants.add_column(name, justify="right")
    for name, terms in contract.tenants.items():
        tenants.add_row(
            Text(name), f"{terms.weight:g}", f"{terms.floor:.0%}" if terms.floor else "-",
            Text(", ".join(terms.classes) or "any"), _number(terms.max_waiting),
            _number(terms.tokens_per_minute), _number(held.keys.get(name)),
        )  # fmt: skip
    classes = Table("class", box=None)
    for name in ("weight", "first token", "each further", "whole answer", "gaps"):
        classes.add_column(name, justify="right")
    classes.add_column("")
    for name in contract.class_names:
        slo = (contract.slo_of(name) or SLO()).scaled(held.slo_scale)
        notes = ["requests that name none"] * (name == contract.default_class)
        notes += ["may be shed"] * (name in contract.sheddable)
        targets = (slo.ttft_ms, slo.tpot_ms, slo.e2e_ms, slo.itl_ms)
        weight = contract.classes.get(name, ClassTerms()).weight
        classes.add_row(
            Text(name), f"{weight:g}", *map(_milliseconds, targets), ", ".join(notes)
        )  # fmt: skip
    parts = [tenants] if contract.tenants else []
    return Group(Text(head), *parts, classes)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:g} ms"

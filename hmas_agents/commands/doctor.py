"""`hmas doctor`: is this installation sane, and what should be done about it?"""

import json

import typer

from hmas_agents.commands.checks import (
    Check,
    check_beside_torch,
    check_engine,
    check_entry_points,
    check_model,
    check_origins,
    check_versions,
)
from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    TokenOption,
    UrlOption,
    read_config,
)

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    *,
    url: UrlOption = None,
    token_file: TokenOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check versions, import origins, the plugin, and a running server if there is one.

    Each line is ok, warn or fail, and says what to do. Exit code 1 if one fails.

    Try:

      hmas doctor

      hmas doctor --url http://gpu-7:8000 --json
    """
    resolved = read_config(config, {"engine.url": url, "engine.token_file": token_file})
    checks = [*check_versions(), *check_beside_torch()]
    checks += [*check_origins(), *check_entry_points()]
    engine = resolved.engine
    checks += [*check_engine(engine), *check_model(resolved.model, engine.token_file)]
    if as_json:
        typer.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        for check in checks:
            _print(check)
    if any(check.result == "fail" for check in checks):
        raise typer.Exit(FAILED)


def _print(check: Check) -> None:
    typer.secho(f"{check.result:<5}", fg=COLOURS[check.result], nl=False)
    typer.echo(f" {check.name}: {check.found}")
    if check.todo:
        typer.echo(f"      -> {check.todo}")

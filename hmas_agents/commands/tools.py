"""`hmas tools`: what may an agent do to the engine?"""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import JsonOption
from serving.contracts.near_names import choices
from tools import describe_tools

app = typer.Typer(help="List what the agents may do.", no_args_is_help=True)


@app.callback()
def _tools() -> None:
    """What the agents may do to the engine: every tool, its arguments and their bounds."""


@app.command("list")
def list_tools(
    name: Annotated[str | None, typer.Argument(help="This tool only.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every tool with its file, arguments and bounds; exit code 1 if a file is broken.

    A file in tools/ with a typed function decorated with @tool is one; a running loop takes
    up a new or edited one at its next tick, and keeps the last good one of a broken file.

    Try:

      hmas tools list                        all of them

      hmas tools list set_token_budget       one

      hmas tools list --json                 as JSON schemas
    """
    described = describe_tools()
    found = [tool for tool in described if name in {None, tool["name"]}]
    if not found:
        known = choices(name or "", [tool["name"] for tool in described])
        raise typer.BadParameter(f"no tool {name!r}; {known}")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        _print(found)
    if any(tool["problem"] for tool in found):
        raise typer.Exit(FAILED)


def _print(found: list[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    for tool in found:
        console.print(f"[bold]{tool['name']}[/]  [dim]{tool['file']}[/]")
        if tool["problem"]:
            console.print(Text(f"  broken: {tool['problem']}", style="red"), soft_wrap=True)
            continue
        console.print(f"  {escape(tool['description'])}")
        arguments = Table.grid(padding=(0, 2))
        for argument, schema in tool["args"].get("properties", {}).items():
            cells = (argument, _type_of(schema), _bounds_of(schema), schema.get("description", ""))
            arguments.add_row("", *cells)
        console.print(arguments)


def _type_of(schema: dict[str, Any]) -> str:
    options = [option.get("type", "?") for option in schema.get("anyOf", [schema])]
    return " or ".join(options)


def _bounds_of(schema: dict[str, Any]) -> str:
    """The bounds in a JSON schema as an interval or a set; empty when there are none."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "maxLength" in schema:
        return f"up to {schema['maxLength']} characters"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    return f"{'' if low is None else low} .. {'' if high is None else high}"

"""`hmas prompts`: what is the model told, and how is that changed?"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from rich.console import Console
from rich.table import Table

from hmas_agents.agents.asking import check_fit, messages_for
from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import JsonOption
from hmas_agents.commands.prompt_check import check_prompts
from hmas_agents.commands.sample_state import SAMPLE_STATE
from hmas_agents.token_count import token_counter
from prompts.edit import LABEL_NAMES, diff, new_version, parse_next, set_label
from prompts.loader import VARIABLES, PromptError, load_prompt, sha256
from prompts.store import (
    ROOT,
    find_version,
    labels,
    lock_key,
    names,
    published,
    version_path,
    versions,
)
from serving.policies import POLICIES

app = typer.Typer(help="List, show, change and check prompts.", no_args_is_help=True)
app.command("check")(check_prompts)

NameArgument = Annotated[str, typer.Argument(help="Folder under prompts/.")]
NameOption = Annotated[str, typer.Option("--name", help="Folder under prompts/.")]
VersionOption = Annotated[
    str, typer.Option("--version", help="A label or a version number.", metavar="LABEL")
]


@app.command("list")
def list_prompts(as_json: JsonOption = False) -> None:
    """Show every prompt, its versions and labels."""
    tables, locked = labels(ROOT), published(ROOT)
    found: list[dict[str, Any]] = []
    for name in names(ROOT):
        for version in versions(name, ROOT):
            row: dict[str, Any] = {
                "name": name,
                "version": version,
                "labels": [label for label, v in tables.get(name, {}).items() if v == version],
                "published": lock_key(name, version) in locked,
            }
            try:
                row["description"] = load_prompt(name, version, ROOT).head.description
            except PromptError as error:  # the others are still worth seeing
                row["description"] = f"broken: {error.problems[0]}"
            found.append(row)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("prompt", "version", "labels", "description", box=None, pad_edge=False)
    for row in found:
        number = f"v{row['version']}" + ("" if row["published"] else " (draft)")
        table.add_row(row["name"], number, ", ".join(row["labels"]), row["description"])
    Console().print(table)


@app.command("show")
def show_prompt(
    name: NameArgument = "policy",
    version: VersionOption = "current",
    rendered: Annotated[bool, typer.Option(help="Fill in a sample situation.")] = True,
) -> None:
    """Print a prompt as the model would get it.

    Try:

      hmas prompts show                              the policy agent's, filled in

      hmas prompts show policy --version 1 --no-rendered
    """
    prompt = load_prompt(name, version, ROOT)
    if rendered and set(prompt.head.variables) <= set(VARIABLES["policy"]):
        messages = messages_for(prompt, SAMPLE_STATE, tuple(POLICIES))
    else:
        messages = [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ]
    for message in messages:
        typer.secho(f"── {message['role']}", bold=True)
        typer.echo(message["content"])
    counter = token_counter()
    size = f"{counter.count_messages(messages)} tokens ({counter.source})"
    typer.secho(f"── {prompt.path.name}, {size}, sha256 {sha256(messages)}", dim=True)


@app.command("new")
def new_prompt(
    name: NameArgument = "policy",
    from_label: Annotated[
        str, typer.Option("--from", help="What to edit: a label or a number.", metavar="LABEL")
    ] = "current",
    file: Annotated[
        Path | None, typer.Option(help="Take the text from there; - is standard input.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a new version: from a file, standard input, or your $EDITOR.

    The `version` line is set for you, everything is checked first, and the file is never
    to be edited again: the next change is the next version. No label moves.

    Try:

      hmas prompts new                          edit the current one in $EDITOR

      hmas prompts new policy --file my_prompt.md

      sed 's/twelve/eight/' prompts/policy/v1.md | hmas prompts new
    """
    text = _text(name, from_label, file)
    try:
        prompt = parse_next(name, text, ROOT)
        if name in VARIABLES:
            check_fit(prompt)
        version = new_version(name, text, ROOT)
    except PromptError as error:
        if file is not None or not sys.stdin.isatty():
            raise
        with tempfile.NamedTemporaryFile("w", suffix=".md", delete=False) as kept:
            kept.write(text)
        raise PromptError(
            f"{error}\nnothing was published; your text is in {kept.name}: put it right, "
            f"then `hmas prompts new {name} --file {kept.name}`"
        ) from error
    path = version_path(name, version, ROOT)
    if as_json:
        typer.echo(json.dumps({"name": name, "version": version, "path": str(path)}))
        return
    typer.echo(f"{path}: published as version {version}")
    typer.echo(f"next: hmas prompts check, then hmas prompts label candidate {version}")


@app.command("diff")
def diff_prompts(
    a: Annotated[str, typer.Argument(help="A label or a version number.")] = "current",
    b: Annotated[str, typer.Argument(help="Another one.")] = "candidate",
    name: NameOption = "policy",
) -> None:
    """Show what differs from one version to another, as a unified diff.

    Try:

      hmas prompts diff                     current to candidate

      hmas prompts diff 1 3 --name policy
    """
    text = diff(name, a, b, ROOT)
    if not text:
        typer.echo(f"{name}: {a} and {b} are the same", err=True)
    for line in text.splitlines():
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        typer.secho(line, fg=colour, bold=line.startswith(("+++", "---")))


@app.command("label")
def label_prompt(
    label: Annotated[str, typer.Argument(help=" or ".join(LABEL_NAMES) + ".")],
    version: Annotated[
        str | None, typer.Argument(help="A version number or another label.", show_default=False)
    ] = None,
    unset: Annotated[bool, typer.Option("--unset", help="Take the label away.")] = False,
    name: NameOption = "policy",
) -> None:
    """Let a label mean a version. A running loop takes it up at its next decision.

    Try:

      hmas prompts label candidate 2            to be replayed and compared

      hmas prompts label current candidate      it has earned it

      hmas prompts label candidate --unset
    """
    if (version is None) != unset:
        raise typer.BadParameter("give either a version or --unset")
    number = None if version is None else find_version(name, version, ROOT)
    before = labels(ROOT).get(name, {}).get(label)
    set_label(name, label, number, ROOT)
    was = "unset" if before is None else f"v{before}"
    typer.echo(f"{name}.{label}: {was} > {'unset' if number is None else f'v{number}'}")


def _text(name: str, from_label: str, file: Path | None) -> str:
    """The new version's text, from wherever it is to come."""
    if file is not None and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"--file {file}: cannot be read: {error}") from error
    if file is not None or not sys.stdin.isatty():
        return sys.stdin.read()
    start = version_path(name, find_version(name, from_label, ROOT), ROOT)
    edited = click.edit(start.read_text(encoding="utf-8"), extension=".md")
    if edited is None:
        raise CommandError("nothing was changed: no new version", FAILED)
    return edited

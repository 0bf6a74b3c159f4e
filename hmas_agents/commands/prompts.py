"""`hmas prompts`: what is the model told, and does every version hold together?"""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from hmas_agents.commands.options import JsonOption
from prompts.loader import ROOT, PromptError, labels, load_prompt, sha256, versions

# A rule of thumb for English text; the served model's tokenizer may differ by a third.
CHARACTERS_PER_TOKEN = 4

app = typer.Typer(help="List, show and check prompts.", no_args_is_help=True)
LabelOption = Annotated[
    str, typer.Option("--version", help="A label or a version number.", metavar="LABEL")
]


@app.command("list")
def list_prompts(as_json: JsonOption = False) -> None:
    """Show every prompt, its versions and labels."""
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "version": version,
            "labels": [label for label, v in labels().get(name, {}).items() if v == version],
            "description": load_prompt(name, version).head.description,
        }
        for name, version in _all_versions()
    ]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("prompt", "version", "labels", "description", box=None, pad_edge=False)
    for row in found:
        shown = ", ".join(row["labels"])
        table.add_row(row["name"], f"v{row['version']}", shown, row["description"])
    Console().print(table)


@app.command("show")
def show_prompt(
    name: Annotated[str, typer.Argument(help="Folder under prompts/.")] = "policy",
    version: LabelOption = "current",
    rendered: Annotated[bool, typer.Option(help="Fill in a sample situation.")] = True,
) -> None:
    """Print a prompt as the model would get it.

    Try:

      hmas prompts show                              the policy agent's, filled in

      hmas prompts show policy --version 1 --no-rendered
    """
    prompt = load_prompt(name, version)
    messages = [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.user},
    ]
    if rendered:
        messages = prompt.render(**_sample_values(prompt.head.variables))
    for message in messages:
        typer.secho(f"── {message['role']}", bold=True)
        typer.echo(message["content"])
    typer.secho(f"── {prompt.path.name}, {_size(messages)}, sha256 {sha256(messages)}", dim=True)


@app.command("check")
def check_prompts(as_json: JsonOption = False) -> None:
    """Load and render every version of every prompt; exit code 1 if one fails.

    Reports variables that the policy agent does not fill in, broken front matter and
    labels, and the size of each prompt with a sample situation.
    """
    rows: list[dict[str, Any]] = []
    for name, version in _all_versions():
        row: dict[str, Any] = {"name": name, "version": version, "ok": True, "problem": ""}
        try:
            prompt = load_prompt(name, version)
            messages = prompt.render(**_sample_values(prompt.head.variables))
            row["characters"] = sum(len(message["content"]) for message in messages)
            row["approx_tokens"] = row["characters"] // CHARACTERS_PER_TOKEN
        except PromptError as error:
            row |= {"ok": False, "problem": str(error)}
        rows.append(row)
    for name, table in labels().items():
        missing = [f"{label} = {v}" for label, v in table.items() if v not in versions(name)]
        problem = f"labels.toml: {', '.join(missing)}: no such version"
        if missing:
            rows.append({"name": name, "version": None, "ok": False, "problem": problem})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        for row in rows:
            where = f"{row['name']} v{row['version']}"
            if row["ok"]:
                size = f"{row['characters']} characters, about {row['approx_tokens']} tokens"
                typer.echo(f"ok    {where}: {size}")
            else:
                typer.echo(f"fail  {row['problem']}")
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _all_versions() -> list[tuple[str, int]]:
    folders = sorted(path.name for path in ROOT.iterdir() if path.is_dir())
    return [(name, version) for name in folders for version in versions(name)]


def _size(messages: list[dict[str, str]]) -> str:
    characters = sum(len(message["content"]) for message in messages)
    return f"{characters} characters, about {characters // CHARACTERS_PER_TOKEN} tokens"


def _sample_values(variables: tuple[str, ...]) -> dict[str, str]:
    """A sample situation's values for the variables that the policy agent fills in."""
    from hmas_agents.agents.summary import parameter_bounds, policy_cards, summarise
    from hmas_agents.commands.sample_state import SAMPLE_STATE
    from serving.policies import POLICIES

    names = tuple(POLICIES)
    known = {
        "policies": policy_cards(names),
        "parameters": parameter_bounds(names),
        "current": SAMPLE_STATE.policy,
        "summary": summarise(SAMPLE_STATE),
    }
    return {name: known[name] for name in variables if name in known}

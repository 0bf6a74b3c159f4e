"""`hmas`: which commands are there? Each is imported only when it is called.

So `hmas --help` is quick, and the CLI does not depend on the graphs and evals above it.
"""

import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hmas_agents.commands.exits import INTERRUPTED, UNUSABLE, check_values, explain, table


@dataclass(frozen=True, slots=True)
class CommandEntry:
    """Where a command lives. `passes_through`: unknown flags reach it in `ctx.args`."""

    target: str
    help: str
    passes_through: bool = False


COMMANDS = {
    "serve": CommandEntry(
        "serving.launch.launcher:serve_command",
        "Start vLLM with the hook; unknown flags go to vLLM.",
        passes_through=True,
    ),
    "fleet": CommandEntry(
        "serving.fleet.serve_command:app", "Start vLLM with the hook on many replicas, by Ray."
    ),
    "run": CommandEntry("graphs.commands:run", "Run the agents beside a running server."),
    "apply": CommandEntry(
        "hmas_agents.commands.hand:apply", "Put a policy or limits in force by hand, for a while."
    ),
    "pin": CommandEntry("hmas_agents.commands.hand:pin", "Hold what is in force until released."),
    "release": CommandEntry("hmas_agents.commands.hand:release", "End what a person holds."),
    "stop": CommandEntry(
        "hmas_agents.commands.hand:stop", "Kill switch: the default policy, and nobody decides."
    ),
    "start": CommandEntry("hmas_agents.commands.hand:start", "End `hmas stop`."),
    "tell": CommandEntry(
        "graphs.tell_command:tell", "Say what matters, see what it costs, and approve it."
    ),
    "told": CommandEntry("hmas_agents.commands.told:told", "List what is in force by words."),
    "untell": CommandEntry("hmas_agents.commands.told:untell", "Take back what was told."),
    "contract": CommandEntry(
        "hmas_agents.commands.contract:app", "Tenants, classes, keys and quotas: show, change."
    ),
    "status": CommandEntry("hmas_agents.commands.status:status", "Show the engine, live."),
    "demo": CommandEntry("evals.demo.commands:demo", "Measure stock vLLM against H-MAS, here."),
    "soak": CommandEntry(
        "evals.checks.soak.commands:soak", "Random traffic and decisions, for long."
    ),
    "eval": CommandEntry("evals.commands:app", "Replay traces and compare schedulers."),
    "teach": CommandEntry(
        "evals.words.teach_command:teach", "Teach the embedded model operators' words."
    ),
    "plan": CommandEntry(
        "evals.plan.commands:plan", "How many replicas does this traffic need?"
    ),
    "profile": CommandEntry(
        "evals.machines.commands:app", "Machines for the simulator: list, make from kernels."
    ),
    "calibrate": CommandEntry(
        "evals.checks.fidelity.commands:calibrate", "Fit the simulator to a live server."
    ),
    "bench": CommandEntry("evals.checks.bench.commands:app", "Time the hook against stock vLLM."),
    "traces": CommandEntry("evals.commands:traces_app", "Fetch the public traces."),
    "trace": CommandEntry("hmas_agents.commands.trace:app", "Read the decision ledger."),
    "ui": CommandEntry("graphs.ui_command:ui", "Show the ledger in a local web page."),
    "replay": CommandEntry(
        "evals.agent.replay_command:replay", "Re-ask recorded situations: old and new, compared."
    ),
    "fork": CommandEntry(
        "graphs.fork_command:fork_command", "Run one recorded decision again, changed."
    ),
    "why": CommandEntry("hmas_agents.commands.why:why", "Explain one request from the ledger."),
    "prompts": CommandEntry(
        "hmas_agents.commands.prompts:app", "List, show, change and check prompts."
    ),
    "tools": CommandEntry("hmas_agents.commands.tools:app", "List what the agents may do."),
    "doctor": CommandEntry("hmas_agents.commands.doctor:doctor", "Check this installation."),
    "config": CommandEntry("hmas_agents.commands.config:config", "Print the configuration."),
}


# What an option takes, in every command that has it and names nothing else.
PLACEHOLDERS = {
    **dict.fromkeys(("cassette", "config", "ledger", "step_log", "token_file", "trace"), "FILE"),
    **dict.fromkeys(("folder", "out"), "FOLDER"),
    **dict.fromkeys(("model_url", "url"), "URL"),
    "policy": "POLICY",
}
HELP_COLUMNS = 78  # of a terminal of 80, as Typer leaves them


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and help, and imports one when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  the base class's signature
        """Every command, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  as above
        """A stand-in with the command's help: enough for `hmas --help` and completion."""
        entry = COMMANDS.get(cmd_name)
        return entry and TyperCommand(cmd_name, help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that is called."""
        name = args[0]
        if name not in COMMANDS:
            from serving.contracts.near_names import choices

            ctx.fail(f"no command {name!r}; {choices(name, COMMANDS)}")
        return name, load_command(name), args[1:]


def load_command(name: str) -> Any:
    """The command of that name, imported. Its target is a Typer app or a plain function."""
    entry = COMMANDS[name]
    module, _, attribute = entry.target.partition(":")
    target = getattr(importlib.import_module(module), attribute)
    app = target
    if not isinstance(target, typer.Typer):
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        settings = {"ignore_unknown_options": True, "allow_extra_args": True}
        if entry.passes_through:
            usage = "[MODEL] [OPTIONS] [OPTIONS OF VLLM]"
            app.command(name, context_settings=settings, options_metavar=usage)(target)
        else:
            app.command(name)(target)
    command = typer.main.get_command(app)
    command.name = name
    check_values(command)
    _lay_out_help(command)
    return command


def _lay_out_help(command: Any) -> None:
    """Prose as one line that any terminal wraps; examples below each other, comments whole."""
    for param in command.params:
        param.metavar = param.metavar or PLACEHOLDERS.get(param.name)
    for inner in getattr(command, "commands", {}).values():
        _lay_out_help(inner)
    blocks: list[str] = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if not paragraph.lstrip().startswith("hmas "):
            blocks.append(" ".join(paragraph.split()))
            continue
        examples = "\n".join(map(_example, paragraph.splitlines()))
        if blocks and blocks[-1].startswith("hmas "):
            blocks[-1] += f"\n{examples}"
        else:
            blocks.append(examples)
    command.help = "\n\n".join(blocks)


def _example(line: str) -> str:
    """A line of an example; a comment that would be wrapped goes below its command."""
    call, gap, comment = line.strip().partition("  ")
    is_short = len(line.strip()) <= HELP_COLUMNS or not gap
    return line.strip() if is_short else f"{call}\n    {comment.strip()}"


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("hmas-scheduler"))
        except PackageNotFoundError:
            typer.echo("not installed: run `make setup`")
        raise typer.Exit


def _hmas(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """H-MAS: a hierarchical multi-agent scheduler beside an unmodified vLLM.

    A first look:  hmas doctor  ·  hmas serve MODEL  ·  hmas run --mode advise  ·  hmas status
    """


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode="rich", epilog=table())
app.callback()(_hmas)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command, and leave with its exit code; an error is `hmas COMMAND: what is wrong`."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        command = typer.main.get_command(app)
        code = command.main(args=words, prog_name="hmas", standalone_mode=False)
        message = "interrupted" if code == INTERRUPTED else ""
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]  # Typer keeps its class to itself
            sys.exit(UNUSABLE)
        if os.environ.get("HMAS_DEBUG") == "1":
            raise
        code, message = explain(error)
    if message:
        sys.stderr.write(f"{' '.join(['hmas', *_called(words)])}: {message}\n")
    sys.exit(code if isinstance(code, int) else 0)


def _called(words: Sequence[str]) -> list[str]:
    """Which command these words call: `trace list` of `trace list --run 3`."""
    if not words or words[0] not in COMMANDS:
        return []
    called = [words[0]]
    if COMMANDS[words[0]].target.partition(":")[0] in sys.modules:  # else importing it failed
        command = load_command(words[0])
        for word in words[1:]:
            command = getattr(command, "commands", {}).get(word)
            if command is None:
                break
            called.append(word)
    return called

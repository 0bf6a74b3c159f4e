"""`hmas replay`: a recorded run asked again with another prompt, model or rule."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    ModelOption,
    ModelUrlOption,
    PromptOption,
    read_config,
)

if TYPE_CHECKING:
    from evals.agent.contenders import Model
    from evals.agent.replay import Recorded
    from evals.agent.replay_result import Replayed, Said, Summary
    from evals.agent.replay_short import ShortReplayed



def replay(
    run: Annotated[int, typer.Argument(help="A run of `hmas trace list`.")],
    *,
    prompt: PromptOption = None,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="Ask the rule table alone: an edited rule, replayed.")
    ] = False,
    horizon: Annotated[
        Literal["long", "short"], typer.Option(help="short: the rule agents, without the twin.")
    ] = "long",
    decision: Annotated[int | None, typer.Option(help="This decision only.")] = None,
    draws: Annotated[
        int, typer.Option(min=0, help="Futures behind each figure of the twin; 0: no twin.")
    ] = 3,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    cassette: Annotated[
        Path | None,
        typer.Option(help="File of replies: with --model-url recorded, without it played."),
    ] = None,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Re-ask the recorded situations of a run, and show old and new side by side.

    The summary is built anew from the recorded state, so an edit of the summary or of a rule
    counts as well as one of the prompt. The twin tries the old proposal, the new one and each
    allowed policy on the same futures. Nothing is applied.

    Try:

      hmas replay 3 --prompt candidate               an edited prompt, the run's own model

      hmas replay 3 --model-url http://127.0.0.1:9000/v1 --model qwen3-4b

      hmas replay 3 --rules                          an edited rule table

      hmas replay 3 --horizon short                  edited rule agents

      hmas replay 3 --decision 42 --draws 10 --json
    """
    path = ledger or read_config(config).ledger.path
    asks = prompt is not None or model_url is not None or model is not None or cassette is not None
    if asks and (rules or horizon == "short"):
        raise typer.BadParameter("--prompt, --model-url, --model and --cassette ask a model")
    if horizon == "short":
        _short(path, run, as_json)
        return
    from evals.agent.replay import ask_again, label, load_run
    from evals.agent.replay_result import summarise
    from evals.progress import CaseProgress

    recorded = load_run(path, run, decision)
    asked = None if rules else _model(recorded, prompt, model_url, model, cassette)
    with CaseProgress() as progress:
        bar = progress.add("asking", len(recorded.pairs))
        try:
            replayed = ask_again(recorded, asked, lambda done: progress.update(bar, done))
        finally:
            if asked is not None:
                asked.close()
        progress.done(bar, f"asked {len(replayed)} decisions")
        if draws:
            replayed = label(
                recorded,
                replayed,
                draws,
                jobs=jobs or os.cpu_count() or 1,
                progress=progress,
            )
    summary = summarise(replayed, recorded.skipped)
    if as_json:
        from hmas_agents.ledger.writer import to_json

        rows = [asdict(each) | {"changed": each.changed} for each in replayed]
        typer.echo(to_json({"run": run, "summary": asdict(summary), "decisions": rows}))
        return
    _show(replayed, summary)


def _model(
    recorded: "Recorded",
    prompt: str | None,
    model_url: str | None,
    model: str | None,
    cassette: Path | None,
) -> "Model | None":
    """The model to ask; None where the run had none and none is named."""
    from evals.agent.contenders import Model
    from evals.arms.cassette import Cassette
    from prompts.loader import load_prompt

    config = recorded.config.model
    named: dict[str, Any] = {"base_url": model_url, "name": model}
    named = {key: value for key, value in named.items() if value is not None}
    if not (config.enabled or named or cassette is not None):
        if prompt is not None:
            raise typer.BadParameter("the run asked no model: name one with --model-url")
        return None
    prompts = recorded.config.prompts
    tape = None if cassette is None else Cassette(cassette, record=model_url is not None)
    return Model(
        config.model_copy(update=named),
        load_prompt(prompts.name, prompts.label if prompt is None else prompt),
        rotations=1,
        cassette=tape,
    )


def _show(replayed: "list[Replayed]", summary: "Summary") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hmas_agents.forms import clock, percent

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    met = "attainment"
    for column in ("id", "time", "in force", "old", met, "new", met, "best", met):
        table.add_column(column, justify="right" if column == met else "left")
    for each in replayed:
        table.add_row(
            str(each.decision),
            clock(each.at_s),
            each.in_force,
            _named(each.old),
            percent(each.old.attainment),
            _named(each.new),
            percent(each.new.attainment),
            each.best or "-",
            percent(each.best_attainment),
            style="bold" if each.changed else "",
        )
    console = Console()
    console.print(table)
    for line in summary_lines(summary):
        console.print(line, highlight=False, soft_wrap=True)


def summary_lines(summary: "Summary") -> list[str]:
    """The figures under the table."""
    lines = [f"{summary.changed} of {summary.decisions} decisions changed (bold)"]
    if summary.skipped:
        lines.append(f"{summary.skipped} decisions hold no situation and were left out")
    if summary.regret_old and summary.regret_new and summary.regret_change:
        lines.append(
            f"regret: old {summary.regret_old.text('{:.3f}')}, "
            f"new {summary.regret_new.text('{:.3f}')}, "
            f"new - old {summary.regret_change.text('{:+.3f}')}"
        )
    for when in ("old", "new"):
        figures = summary.figures[when]
        if figures["validity"] is not None:
            latency_s, tokens = figures["latency_s"], figures["tokens"]
            lines.append(
                f"{when}: {figures['validity']:.0%} of the replies usable"
                + ("" if latency_s is None else f", {latency_s:.2f} s")
                + ("" if tokens is None else f", {tokens:.0f} tokens")
            )
    return lines


def _named(said: "Said") -> str:
    from serving.policies import format_policy

    return f"{format_policy(said.policy, said.params)} ({said.source})"


def _short(path: Path, run: int, as_json: bool) -> None:
    from evals.agent.replay_short import replay_short

    replayed = replay_short(path, run)
    changed = [each for each in replayed if each.changed]
    if as_json:
        from hmas_agents.ledger.writer import to_json

        rows = [asdict(each) | {"changed": each.changed} for each in replayed]
        summary = {"decisions": len(replayed), "changed": len(changed)}
        typer.echo(to_json({"run": run, "summary": summary, "decisions": rows}))
        return
    _show_short(changed)
    typer.echo(
        f"{len(changed)} of {len(replayed)} recorded ticks would go otherwise; quiet ticks are "
        "not recorded, so rules that act anew are not seen"
    )


def _show_short(changed: "list[ShortReplayed]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from hmas_agents.forms import clock

    if not changed:
        return
    table = Table("id", "time", "old", "new", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for each in changed:
        table.add_row(str(each.decision), clock(each.at_s), _calls(each.old), _calls(each.new))
    Console().print(table)


def _calls(calls: dict[str, dict[str, Any]]) -> str:
    from hmas_agents.forms import call_text
    from hmas_agents.records import ToolCall

    made = [ToolCall(tool, args, accepted=True, reason="") for tool, args in calls.items()]
    return ", ".join(map(call_text, made)) or "nothing"

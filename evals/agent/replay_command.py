"""`hmas replay`: a recorded run asked again with another prompt, model or rule."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from evals.agent.commands import CassetteOption, JobsOption
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
    jobs: JobsOption = 0,
    cassette: CassetteOption = None,
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
        from evals.agent.replay_short import replay_short, short_sheet

        ticks = replay_short(path, run)
        changed = sum(tick.changed for tick in ticks)
        said = (
            f"{changed} of {len(ticks)} recorded ticks would go otherwise; quiet ticks are "
            "not recorded, so rules that act anew are not seen"
        )
        _show(run, {"decisions": len(ticks), "changed": changed}, ticks, as_json,
              *([short_sheet(ticks)] if changed else []), said)  # fmt: skip
        return
    from evals.agent.replay import ask_again, label, lines, load_run, sheet, summarise
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
            replayed = label(recorded, replayed, draws, jobs=jobs, progress=progress)
    summary = summarise(replayed, recorded.skipped)
    _show(run, asdict(summary), replayed, as_json, sheet(replayed), *lines(summary))


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


def _show(
    run: int, summary: dict[str, Any], replayed: Sequence[Any], as_json: bool, *shown: Any
) -> None:
    from evals.report.sheet import show
    from hmas_agents.ledger.writer import to_json

    rows = [asdict(each) | {"changed": each.changed} for each in replayed]
    show(to_json({"run": run, "summary": summary, "decisions": rows}), as_json, *shown)

"""`hmas fork`: one recorded decision again, with something changed, as far as `verify` goes."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from graphs.fork import STEPS, Change, Step, fork
from graphs.long_horizon import MIN_REPLAYED
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    ModelOption,
    ModelUrlOption,
    PromptOption,
    read_config,
)
from hmas_agents.commands.trace_story import checked
from hmas_agents.config import Config
from hmas_agents.forms import decision_text
from hmas_agents.ledger.reader import LedgerReader, StoredDecision, config_of
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.twin.prediction import Past
from serving.policies import parse_policy

BY_HAND = "asked by hand"


def fork_command(
    decision: Annotated[int, typer.Argument(help="An id of `hmas trace list --horizon long`.")],
    *,
    policy: Annotated[
        str | None, typer.Option(help="Propose this one too, also as `slide:kappa=40`.")
    ] = None,
    step: Annotated[
        str | None,
        typer.Option("--from", metavar="|".join(STEPS), help="The first step that runs again."),
    ] = None,
    prompt: PromptOption = None,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Run one recorded decision again from a step, with something changed.

    The ledger holds what each step started from; the engine is a recorded one, in advise
    mode. It shows what the guardrails and the twin say of the change; the twin also tries a
    policy that control.allow_policies does not allow. Nothing is applied or stored. Without
    --from it starts at verify with --policy, else at summarise.

    Try:

      hmas fork 42 --policy fcfs                     what would verify have said of fcfs?

      hmas fork 42 --policy slide:kappa=40           with parameters

      hmas fork 42 --prompt candidate                asked with another prompt

      hmas fork 42 --from propose                    the same words to the model once more

      hmas fork 42 --model-url http://127.0.0.1:9000/v1 --model qwen3-4b
    """
    path = ledger or read_config(config).ledger.path
    with LedgerReader(path) as reader:
        stored = reader.get_decision(decision)
        earlier = reader.list_decisions(stored.run_id, "long")
        recorded = config_of(reader.get_run(stored.run_id), path)
    asks_again = prompt is not None or model_url is not None or model is not None
    if policy is not None and asks_again:
        raise typer.BadParameter("--policy joins what was proposed; --prompt and --model ask anew")
    first = _step(step, "verify" if policy is not None else "summarise")
    if policy is not None and first != "verify":
        raise typer.BadParameter(f"--policy joins before verify, not before {first}")
    if (asks_again and first == "verify") or (prompt is not None and first != "summarise"):
        raise typer.BadParameter(f"--from {first} comes after what --prompt or --model change")
    before = [each.record for each in earlier if each.id < stored.id]
    change = Change(
        step=first,
        config=_config_of(recorded, prompt, model_url, model),
        proposals=_by_hand(policy),
        switched_at_s=[each.at_s for each in before if each.chosen.get("applied")],
        past=_settled(before, stored.record.at_s),
    )
    forked = fork(stored, change)
    if as_json:
        typer.echo(to_json({"decision": decision, "step": first} | asdict(forked)))
        return
    _show(Console(), stored, forked, first)


def _step(named: str | None, usual: Step) -> Step:
    for step in STEPS:
        if named == step:
            return step
    if named is not None:
        raise typer.BadParameter(f"--from is one of {', '.join(STEPS)}, not {named!r}")
    return usual


def _settled(before: Sequence[DecisionRecord], now_s: float) -> list[Past]:
    """What came of the predictions of the run whose window was over by then."""
    return [
        Past(each.predicted, float(each.twin["spread"]), each.realised)
        for each in before
        if each.predicted is not None
        and each.realised is not None
        and each.twin.get("spread")
        and (each.realised_requests or 0) >= MIN_REPLAYED
        and each.at_s + float(each.twin.get("horizon_s", 0.0)) <= now_s
    ]


def _config_of(
    config: Config, prompt: str | None, model_url: str | None, model: str | None
) -> Config:
    """The run's configuration with what is asked otherwise."""
    if prompt is not None:
        prompts = config.prompts.model_copy(update={"label": prompt})
        config = config.model_copy(update={"prompts": prompts})
    changed: dict[str, Any] = {"base_url": model_url, "name": model}
    changed = {key: value for key, value in changed.items() if value is not None}
    if changed:
        asked = config.model.model_copy(update=changed | {"enabled": True})
        config = config.model_copy(update={"model": asked})
    return config


def _by_hand(text: str | None) -> list[Proposal]:
    if text is None:
        return []
    try:
        policy, params = parse_policy(text)
    except ValueError as error:
        raise typer.BadParameter(f"--policy {text}: {error}") from error
    return [Proposal("person", policy, params, reason=BY_HAND)]


def _show(console: Console, stored: StoredDecision, forked: DecisionRecord, step: Step) -> None:
    console.print(
        f"decision {stored.id} of run {stored.run_id}, again from [bold]{step}[/]; "
        "recorded engine, nothing applied"
    )
    for when, record in (("then", stored.record), ("now", forked)):
        chosen, reason = escape(decision_text(record)), escape(record.reason)
        console.print(f"{when}: [bold]{chosen}[/]  {reason}", highlight=False)
        for line in checked(record):
            console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    for fault in forked.faults:
        console.print(f"[yellow]{escape(fault)}[/]", highlight=False)

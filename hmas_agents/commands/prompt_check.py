"""`hmas prompts check`: does every version hold together, and how large does it get?"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.agents.asking import check_fit, messages_for
from hmas_agents.agents.summary import summarise
from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import ConfigOption, JsonOption, LedgerOption, read_config
from hmas_agents.commands.sample_state import SAMPLE_STATES
from hmas_agents.ledger.reader import LedgerReader
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.states import LongState
from hmas_agents.token_count import TokenCounter, token_counter
from prompts.loader import VARIABLES, Prompt, PromptError, load_prompt
from prompts.store import LABELS, LOCK, ROOT, labels, lock_key, names, published, versions
from serving.contracts import ContractError, decode
from serving.policies import POLICIES

MAX_SUMMARY_TOKENS = 600
MAX_SITUATIONS = 200  # the newest; their summaries repeat


@dataclass(slots=True)
class Checked:
    """What was found out about one version; `version` None is about the files beside them.

    Attributes:
        situations: rendered; 0 where a prompt is not the policy agent's to fill in.
        tokens / summary_tokens: of the longest one.
        notes: what does not fail the check.
    """

    name: str
    version: int | None
    labels: list[str] = field(default_factory=list)
    ok: bool = True
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    situations: int = 0
    characters: int = 0
    tokens: int = 0
    summary_tokens: int = 0
    counted_by: str = ""


def check_prompts(
    *,
    run: Annotated[int | None, typer.Option("--run", help="Situations of this run only.")] = None,
    model_url: Annotated[
        str | None,
        typer.Option(help="vLLM server whose tokenizer counts.", metavar="URL"),
    ] = None,
    as_json: JsonOption = False,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:
    """Render every version against recorded situations; exit code 1 if one fails.

    Situations are those of the ledger's long-horizon decisions, else a few built-in ones.
    Reported are broken front matter, variables that nobody fills in, versions edited after
    they were published, labels that mean nothing, and tokens as the model's tokenizer counts
    them: over 600 for the summary is a failure. An unlabelled version that the agent of
    today can no longer use is noted, not failed: it stays as it was sent.

    Try:

      hmas prompts check

      hmas prompts check --run 3 --model-url http://127.0.0.1:8000

      hmas prompts check --json | jq '.[] | select(.ok | not)'
    """
    states, source = _situations(ledger, config, run)
    counter = token_counter(model_url)
    rows = [*_versions(states, counter), *_files()]
    for row in rows:
        row.ok = not row.problems
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        typer.echo(f"rendered with {source}; tokens by {counter.source}")
        for row in rows:
            _print(row)
    if not all(row.ok for row in rows):
        raise typer.Exit(FAILED)


def _versions(states: list[LongState], counter: TokenCounter) -> Iterator[Checked]:
    tables, locked = labels(ROOT), published(ROOT)
    for name in names(ROOT):
        for version in versions(name, ROOT):
            row = Checked(name, version)
            row.labels = [label for label, v in tables.get(name, {}).items() if v == version]
            if lock_key(name, version) not in locked:
                where = row.problems if row.labels else row.notes
                where.append(f"a draft: `hmas prompts label candidate {version}` publishes it")
            try:
                prompt = load_prompt(name, version, ROOT)
            except PromptError as error:
                row.problems += error.problems
            else:
                _render(row, prompt, states, counter)
            yield row


def _render(row: Checked, prompt: Prompt, states: list[LongState], counter: TokenCounter) -> None:
    """Fill in the prompt for every situation and measure the longest."""
    try:
        check_fit(prompt)
    except PromptError as error:
        (row.problems if row.labels and row.name in VARIABLES else row.notes).append(str(error))
        return
    sent = [messages_for(prompt, state, tuple(POLICIES)) for state in states]
    distinct = {json.dumps(messages): messages for messages in sent}.values()
    summaries = {summarise(state) for state in states}
    row.situations, row.counted_by = len(sent), counter.source
    row.characters = max(sum(len(message["content"]) for message in one) for one in distinct)
    row.tokens = max(counter.count_messages(messages) for messages in distinct)
    if "summary" in prompt.head.variables:
        row.summary_tokens = max(counter.count_text(text) for text in summaries)
    if row.summary_tokens > MAX_SUMMARY_TOKENS:
        row.problems.append(
            f"{prompt.path}: summary: {row.summary_tokens} tokens, over {MAX_SUMMARY_TOKENS}"
        )
    longest = row.tokens + (prompt.head.max_tokens or 0)
    if counter.context_tokens is not None and longest > counter.context_tokens:
        row.problems.append(
            f"{prompt.path}: {longest} tokens with the reply do not fit the model's "
            f"{counter.context_tokens}"
        )


def _files() -> Iterator[Checked]:
    """What is wrong with the label file and the lock file."""
    for name, table in labels(ROOT).items():
        have = versions(name, ROOT)
        missing = [f"{label} = {v}" for label, v in table.items() if v not in have]
        if missing:
            problem = f"{ROOT / LABELS}: {name}: {', '.join(missing)}: no such version"
            yield Checked(name, None, problems=[problem])
    for key in published(ROOT):
        if not (ROOT / key).is_file():
            problem = f"{ROOT / LOCK}: {key}: was published and is gone: restore it"
            yield Checked(key.partition("/")[0], None, problems=[problem])


def _situations(
    ledger: Path | None, config: Path | None, run: int | None
) -> tuple[list[LongState], str]:
    """Situations to render with, newest last, and where they are from."""
    path = ledger or read_config(config).ledger.path
    wanted = ledger is not None or run is not None
    if not wanted and not path.is_file():
        return list(SAMPLE_STATES), f"{len(SAMPLE_STATES)} built-in situations"
    states, unreadable = [], 0
    with LedgerReader(path) as reader:
        if run is not None:
            reader.get_run(run)
        for stored in reader.list_decisions(run, "long", limit=MAX_SITUATIONS):
            try:
                states.append(decode(LongState, stored.record.state))
            except ContractError:  # of an older H-MAS
                unreadable += 1
    if states:
        left_out = f" ({unreadable} of an older form left out)" if unreadable else ""
        return states, f"{len(states)} situations of {path}{left_out}"
    if wanted:
        which = "" if run is None else f" of run {run}"
        raise LedgerError(f"{path}: holds no situation{which}; `hmas trace list` shows runs")
    return list(SAMPLE_STATES), f"{len(SAMPLE_STATES)} built-in situations"


def _print(row: Checked) -> None:
    mark = "ok  " if row.ok else "fail"
    if row.version is not None:
        shown = f" ({', '.join(row.labels)})" if row.labels else ""
        size = "not rendered"
        if row.situations:
            size = f"up to {row.tokens} tokens, {row.summary_tokens} of them the summary"
        typer.secho(f"{mark}  {row.name} v{row.version}{shown}: {size}", bold=not row.ok)
    for problem in row.problems:
        typer.secho(f"fail  {problem}", fg="red")
    for note in row.notes:
        typer.echo(f"note  {row.name} v{row.version}: {note}")

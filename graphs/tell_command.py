"""`hmas tell`: how do an operator's words become what is in force? Shown, asked about, done."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from graphs.intent import (
    EDIT,
    YES,
    Desk,
    build_intent,
    checkpoints_of,
)
from hmas_agents.commands.exits import FAILED, CommandError
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    ModelOption,
    ModelUrlOption,
    TokenOption,
    UrlOption,
    read_config,
)
from hmas_agents.commands.wheel import record_by_person, whoever_is_here
from hmas_agents.intent.change import Change
from hmas_agents.intent.exact import ExactOr
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.imagined import foresee
from hmas_agents.intent.model_reader import ModelReader
from hmas_agents.intent.reading import Reader
from hmas_agents.intent.shown import preview_lines, printable, told_text
from hmas_agents.intent.told import ToldStore, told_path
from hmas_agents.ledger.writer import to_json
from prompts.loader import load_prompt
from serving.contracts import Contract
from serving.engines.live import LiveEngine, read_token

SURE = 0.9  # --yes needs more than this
MAX_LETTERS = 2000


def tell(
    text: Annotated[
        list[str] | None, typer.Argument(help="What you want, in your words.", metavar="TEXT")
    ] = None,
    *,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", "-y",
            help="Approve unasked: only with a preview, a confidence above 0.9, and nothing that "
            "sheds or lowers a floor.",
        ),
    ] = False,
    go_on: Annotated[
        int | None, typer.Option("--go-on", help="Go on with what waits for an answer.", min=1)
    ] = None,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    token_file: TokenOption = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
) -> None:  # fmt: skip
    """Say what matters now, or what is about to happen; see what it costs; approve.

    Words become changes of the contract (weight and floor of a tenant, targets of a class, what is
    shed) or announced traffic. They end by themselves where an end is said, else by `hmas untell`.
    Nothing acts before somebody approves, and only beside a controller (`hmas run`); what cannot
    act yet is refused. What is not clear is asked back, once. Names and times: as in the contract,
    and by this machine's clock. All of it is in the ledger. It is read by a grammar, or by a model
    with --model-url.

    Try:

      hmas tell "acme launches at 14:00, expect three times their requests"

      hmas tell "floor 20% for acme until 18:00"

      hmas tell "shed half of batch for 30 minutes"

      hmas tell --go-on 3                               what was interrupted

    For scripts: a text that is JSON, a list of changes as --json shows them, is taken as it stands,
    with confidence 1. --json without --yes approves nothing. Exit code 1: it is not in force.
    """
    if (text is None) == (go_on is None):
        raise CommandError("say what you want, or --go-on NUMBER")
    given = {
        "engine.url": url, "engine.token_file": token_file, "ledger.path": ledger,
        "model.base_url": model_url, "model.name": model,
    }  # fmt: skip
    settings = read_config(config, given)
    words = "" if text is None else _text(text)
    token = read_token(settings.engine.token_file)
    engine = LiveEngine(settings.engine.url, token)
    reader: Reader = Grammar()
    if model_url is not None or model is not None:
        prompt = load_prompt("intent", "current")
        reader = ModelReader(settings.model, prompt, token)
    snapshot, held = engine.snapshot(), engine.contract()
    with ToldStore(told_path(settings.ledger.path), create=True) as store:
        desk = Desk(
            store=store,
            reader=ExactOr(reader),
            snapshot=snapshot,
            held=held,
            preview=lambda changes: foresee(settings, changes, engine.now()),
            record=lambda record: record_by_person(settings, record, "tell"),
            wait_s=2 * settings.control.short_tick_s + 1.0,
            now=engine.now,
        )
        with checkpoints_of(store) as checkpoints:
            dialogue = _Dialogue(desk, build_intent(desk, checkpoints), yes=yes, as_json=as_json)
            dialogue.run(words, go_on)


def _text(words: Sequence[str]) -> str:
    """One text of what was typed; what cannot be written as UTF-8 becomes a question mark."""
    text = " ".join(words).encode(errors="replace").decode().strip()
    if not text:
        raise CommandError("say what you want")
    if len(text) > MAX_LETTERS:
        raise CommandError(f"{len(text)} letters are too many: at most {MAX_LETTERS}")
    return text


class _Dialogue:
    """One text, from what was typed to what is in force."""

    def __init__(self, desk: Desk, graph: Any, *, yes: bool, as_json: bool) -> None:
        self._desk, self._graph, self._yes, self._as_json = desk, graph, yes, as_json

    def run(self, text: str, go_on: int | None) -> None:
        """Go on until it ends, or waits for somebody else."""
        from langgraph.types import Command

        store, now_s = self._desk.store, self._desk.now()
        if go_on is None:
            who = whoever_is_here()
            told = store.add(now_s, who, text)
            thread = {"configurable": {"thread_id": str(told)}}
            first = {"told": told, "by": who, "text": text, "at_s": now_s}
            state = self._graph.invoke(first, thread)
        else:
            told, thread = go_on, {"configurable": {"thread_id": str(go_on)}}
            if (was := store.get(told).state) != "waiting":
                raise CommandError(f"{told} does not wait for an answer: it is {was}")
            state = self._resumed(told, thread)
        while pending := state.get("__interrupt__"):
            for line in preview_lines(state, self._desk.now()):
                self._say(line)
            answer = self._answer(told, pending[0].value, state)
            state = self._graph.invoke(Command(resume=answer), thread)
        self._graph.checkpointer.delete_thread(str(told))  # the ledger has all of it
        self._end(told, state)

    def _resumed(self, told: int, thread: Any) -> Any:
        """Where it stands; a step that was cut short runs again."""
        snapshot = self._graph.get_state(thread)
        if not snapshot.next:  # cut short before its first step
            old = self._desk.store.get(told)
            first = {"told": told, "by": old.by, "text": old.text, "at_s": old.at_s}
            return self._graph.invoke(first, thread)
        values = snapshot.values
        self._say(printable(f"{told}, told by {values['by']}: {values['text']}"))
        interrupts = [each for task in snapshot.tasks for each in task.interrupts]
        if interrupts:
            return {**values, "__interrupt__": interrupts}
        return self._graph.invoke(None, thread)

    def _say(self, line: str) -> None:
        if not self._as_json:
            typer.echo(line)

    def _answer(self, told: int, asked: Any, state: Any) -> Any:
        waits = f"nothing was changed; it waits: hmas tell --go-on {told}"
        if "question" in asked:
            self._say(f"asks back    {printable(asked['question'])}")
            if self._as_json or self._yes:
                self._stop(told, state, f"not clear: {asked['question']}")
            reply = self._ask("say it anew", waits).strip()
            if not reply:
                raise CommandError(waits, FAILED)
            return _text([reply])
        if self._yes:
            if why := self._not_by_yes(asked):
                self._stop(told, state, f"--yes is not enough: {why}; {waits}")
            return {"answer": YES}
        if self._as_json:
            self._stop(told, state, "")
        said = self._ask("apply? [y/N/edit]", waits).strip().casefold()
        if said in {"e", EDIT}:
            return {"answer": EDIT, "text": _text([self._ask("say it anew", waits)])}
        return {"answer": YES if said in {"y", "yes"} else "n"}

    def _ask(self, prompt: str, waits: str) -> str:
        try:
            return str(typer.prompt(prompt, default="", show_default=False, prompt_suffix=" "))
        except (typer.Abort, EOFError) as error:
            raise CommandError(waits, FAILED) from error

    def _not_by_yes(self, asked: Any) -> str:
        """Why somebody has to look at it; empty where --yes may stand for a person."""
        changes = [Change.model_validate(each) for each in asked["changes"]]
        if asked["confidence"] <= SURE:
            return f"its confidence is {asked['confidence']:.2f}, not above {SURE}"
        if asked["forecast"].get("why_not"):
            return f"there is no preview ({asked['forecast']['why_not']})"
        for each in changes:
            if each.kind == "shed" and each.amount > 0:
                return "it sheds requests"
            if each.kind == "floor" and each.amount < _floor(self._desk.held.contract, each):
                return "it lowers a floor"
        return ""

    def _stop(self, told: int, state: Any, why: str) -> None:
        """Leave it waiting: a script sees it, and gets an exit code."""
        if self._as_json:
            typer.echo(to_json(self._document(told, state)))
        if why:
            raise CommandError(printable(why), FAILED)
        raise typer.Exit

    def _end(self, told: int, state: Any) -> None:
        text = self._desk.store.get(told)
        if self._as_json:
            typer.echo(to_json(self._document(told, state)))
        if text.state != "approved":
            why = f"nothing was changed: {text.state} {text.note}".rstrip()
            raise CommandError(printable(why), FAILED)
        for each in text.changes:
            said = each.state or "approved, but no controller has taken it up yet (`hmas run`)"
            note = f": {each.note}" if each.note else ""
            self._say(printable(f"{said}{note}   {told_text(each)}"))
        self._say(f"number {told}: `hmas told` shows it, `hmas untell {told}` takes it back")
        if any(each.state in {"not applied", ""} for each in text.changes):
            raise typer.Exit(FAILED)

    def _document(self, told: int, state: Any) -> dict[str, Any]:
        text = self._desk.store.get(told)
        keys = ("confidence", "question", "problems", "forecast")
        return {
            "told": told, "state": text.state, "note": text.note, "by": text.by, "text": text.text,
            "reader": self._desk.reader.name, **{key: state.get(key) for key in keys},
            "changes": state.get("changes"), "outcome": state.get("outcome"),
        }  # fmt: skip


def _floor(contract: Contract, change: Change) -> float:
    return contract.terms_of(change.tenant or "").floor

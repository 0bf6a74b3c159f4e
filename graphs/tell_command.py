"""`hmas tell`: how do an operator's words become what is in force? Shown, asked about, done."""

from typing import Annotated, Any, NoReturn

import typer

from graphs.dialogue import NO, Dialogue, Standing, open_dialogue, read_text
from graphs.intent import EDIT, YES
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
from hmas_agents.intent.change import Change
from hmas_agents.intent.shown import preview_lines, printable, told_text
from hmas_agents.ledger.writer import to_json
from serving.contracts import Contract

SURE = 0.9  # --yes needs more than this


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

    Words become changes of the contract (weights, floor of a tenant, targets of a class, what is
    shed) or announced traffic. They end by themselves where an end is said, else by `hmas untell`.
    Nothing acts before somebody approves, and only beside a controller (`hmas run`); what cannot
    act yet is refused. What is not clear is asked back, once. Names and times: as in the contract,
    and by this machine's clock. All of it is in the ledger. It is read by the embedded model where
    it is served, else by a grammar, or by a model with --model-url.

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
    words = "" if text is None else read_text(" ".join(text))
    asks_model = model_url is not None or model is not None
    with open_dialogue(settings, asks_model=asks_model) as dialogue:
        terminal = _Terminal(dialogue, yes=yes, as_json=as_json)
        terminal.run(dialogue.begin(words) if go_on is None else terminal.resume(go_on))


class _Terminal:
    """Shows where a text stands, and asks."""

    def __init__(self, dialogue: Dialogue, *, yes: bool, as_json: bool) -> None:
        self._dialogue, self._yes, self._as_json = dialogue, yes, as_json

    def resume(self, told: int) -> Standing:
        """Where a text stands that somebody told before."""
        at = self._dialogue.resume(told)
        self._say(printable(f"{told}, told by {at.work['by']}: {at.work['text']}"))
        return at

    def run(self, at: Standing) -> None:
        """Go on until it ends, or waits for somebody else."""
        while at.waits_for:
            for line in preview_lines(at.work, self._dialogue.desk.now()):
                self._say(line)
            at = self._answered(at)
        self._end(at)

    def _say(self, line: str) -> None:
        if not self._as_json:
            typer.echo(line)

    def _answered(self, at: Standing) -> Standing:
        waits = f"nothing was changed; it waits: hmas tell --go-on {at.told}"
        if at.waits_for == "words":
            self._say(f"asks back    {printable(at.asked['question'])}")
            if self._as_json or self._yes:
                self._stop(at, f"not clear: {at.asked['question']}")
            reply = self._ask("say it anew", waits).strip()
            if not reply:
                raise CommandError(waits, FAILED)
            return self._dialogue.answer(at, text=reply)
        if self._yes:
            if why := self._not_by_yes(at.asked):
                self._stop(at, f"--yes is not enough: {why}; {waits}")
            return self._dialogue.answer(at, YES)
        if self._as_json:
            self._stop(at, "")
        said = self._ask("apply? [y/N/edit]", waits).strip().casefold()
        if said in {"e", EDIT}:
            return self._dialogue.answer(at, EDIT, self._ask("say it anew", waits))
        return self._dialogue.answer(at, YES if said in {"y", "yes"} else NO)

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
            floor = _floor(self._dialogue.desk.held.contract, each)
            if each.kind == "floor" and each.amount < floor:
                return "it lowers a floor"
        return ""

    def _stop(self, at: Standing, why: str) -> NoReturn:
        """Leave it waiting: a script sees it, and gets an exit code."""
        self._print(at)
        if why:
            raise CommandError(printable(why), FAILED)
        raise typer.Exit

    def _end(self, at: Standing) -> None:
        text = self._dialogue.desk.store.get(at.told)
        self._print(at)
        if text.state != "approved":
            why = f"nothing was changed: {text.state} {text.note}".rstrip()
            raise CommandError(printable(why), FAILED)
        for each in text.changes:
            said = each.state or "approved, but no controller has taken it up yet (`hmas run`)"
            note = f": {each.note}" if each.note else ""
            self._say(printable(f"{said}{note}   {told_text(each)}"))
        self._say(f"number {at.told}: `hmas told` shows it, `hmas untell {at.told}` takes it back")
        if any(each.state in {"not applied", ""} for each in text.changes):
            raise typer.Exit(FAILED)

    def _print(self, at: Standing) -> None:
        if self._as_json:
            typer.echo(to_json(self._dialogue.document(at)))


def _floor(contract: Contract, change: Change) -> float:
    return contract.terms_of(change.tenant or "").floor

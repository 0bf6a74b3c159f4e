"""How does a text come into force, wherever somebody answers? One dialogue, step by step.

A dialogue is a thread of the graph `intent`. It begins with a text and goes on with each answer, on
a terminal (`hmas tell`), in the page of `hmas ui`, or one after the other in both.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Command

from graphs.intent import EDIT, YES, Desk, build_intent, checkpoints_of
from hmas_agents.commands.exits import CommandError
from hmas_agents.commands.wheel import record_by_person, whoever_is_here
from hmas_agents.config import Config
from hmas_agents.intent.change import Change
from hmas_agents.intent.endpoint import Endpoint
from hmas_agents.intent.exact import ExactOr
from hmas_agents.intent.grammar import Grammar
from hmas_agents.intent.imagined import foresee
from hmas_agents.intent.model_reader import ModelReader
from hmas_agents.intent.reading import Reader
from hmas_agents.intent.shown import change_cells
from hmas_agents.intent.taught_reader import taught_at
from hmas_agents.intent.told import ToldStore, told_path
from prompts.loader import load_prompt
from serving.engines.live import read_token
from serving.fleet.connect import connect

NO = "n"
MAX_LETTERS = 2000
OF_WORK = ("confidence", "question", "problems", "forecast", "changes", "outcome")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a text stands.

    Attributes:
        told: its number.
        work: what the graph knows of it, as `Intent` has it.
        asked: what somebody has to answer; empty where it has ended.
    """

    told: int
    work: Mapping[str, Any]
    asked: Mapping[str, Any]

    @property
    def waits_for(self) -> str:
        """`words` where it was not clear, `approval`, or nothing where it has ended."""
        return "words" if "question" in self.asked else "approval" if self.asked else ""


class Dialogue:
    """Texts on their way. Nothing comes into force but by the answer `y`."""

    def __init__(self, desk: Desk, checkpoints: BaseCheckpointSaver[Any]) -> None:
        self.desk = desk
        self._checkpoints = checkpoints
        self._graph = build_intent(desk, checkpoints)

    def begin(self, text: str) -> Standing:
        """Take a text, of `read_text`, and go on until somebody has to answer, or it ends."""
        return self.resume(self.desk.store.add(self.desk.now(), whoever_is_here(), text))

    def resume(self, told: int) -> Standing:
        """Where a text stands; a step that was cut short runs again.

        Raises:
            ToldError: there is none of that number.
            CommandError: it does not wait for an answer.
        """
        text = self.desk.store.get(told)
        if text.state != "waiting":
            raise CommandError(f"{told} does not wait for an answer: it is {text.state}")
        snapshot = self._graph.get_state(_thread(told))
        if not snapshot.next:  # it is new, or was cut short before its first step
            first = {"told": told, "by": text.by, "text": text.text, "at_s": text.at_s}
            return self._go_on(told, first)
        interrupts = [each for task in snapshot.tasks for each in task.interrupts]
        if interrupts:
            return Standing(told, snapshot.values, interrupts[0].value)
        return self._go_on(told, None)

    def answer(self, at: Standing, answer: str = "", text: str = "") -> Standing:
        """Say what it waits for, and go on.

        Args:
            at: where it stands.
            answer: `y`, `n` or `edit` where it waits for approval.
            text: in other words; for `edit`, and where it waits for words.

        Raises:
            CommandError: that is not what it waits for, or no text that can be read.
        """
        said: Any
        if at.waits_for == "words" and not answer:
            said = read_text(text)
        elif at.waits_for == "approval" and answer == EDIT:
            said = {"answer": EDIT, "text": read_text(text)}
        elif at.waits_for == "approval" and answer in {YES, NO} and not text:
            said = {"answer": answer}
        else:
            wanted = {"words": "other words", "approval": "y, n, or edit with a text"}
            raise CommandError(f"{at.told} waits for {wanted.get(at.waits_for, 'nothing')}")
        return self._go_on(at.told, Command(resume=said))

    def document(self, at: Standing) -> dict[str, Any]:
        """All of it, JSON-ready; `understood` and `forecast` are what a person has to see."""
        text = self.desk.store.get(at.told)
        changes = [Change.model_validate(each) for each in at.work.get("changes") or []]
        return {
            "told": at.told, "state": text.state, "note": text.note, "by": text.by,
            "text": text.text, "reader": self.desk.reader.name, "waits_for": at.waits_for,
            **{key: at.work.get(key) for key in OF_WORK},
            "understood": [change_cells(each) for each in changes],
        }  # fmt: skip

    def _go_on(self, told: int, given: Any) -> Standing:
        work = self._graph.invoke(given, _thread(told))
        if pending := work.get("__interrupt__"):
            return Standing(told, work, pending[0].value)
        self._checkpoints.delete_thread(str(told))  # the ledger has all of it
        return Standing(told, work, {})


@contextmanager
def open_dialogue(settings: Config, *, asks_model: bool) -> Iterator[Dialogue]:
    """A dialogue about the engine of a configuration, as it is now.

    Args:
        settings: of the controller whose ledger the words lie beside.
        asks_model: whichever model is served reads; otherwise only the one that was taught to,
            or the grammar.

    Raises:
        EngineUnavailable, TokenError: nothing is known of the engine.
        ToldError: the file of what was told cannot be used.
    """
    token = read_token(settings.engine.token_file)
    reader = _reader(settings, token, asks_model=asks_model)
    with closing(connect(settings.engine.url, token)) as engine:
        snapshot, held = engine.snapshot(), engine.contract()
        with (
            ToldStore(told_path(settings.ledger.path), create=True) as store,
            checkpoints_of(store) as checkpoints,
        ):
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
            yield Dialogue(desk, checkpoints)


def _reader(settings: Config, token: str, *, asks_model: bool) -> Reader:
    if taught := taught_at(settings.model, token):
        return taught
    if asks_model:
        chat = Endpoint(settings.model, token).chat
        return ModelReader(chat, load_prompt("intent", "current"))
    return Grammar()


def read_text(typed: str) -> str:
    """The text of what was typed; what cannot be written as UTF-8 becomes a question mark.

    Raises:
        CommandError: it is empty, too long, or has control characters.
    """
    text = typed.encode(errors="replace").decode().strip()
    if not text:
        raise CommandError("say what you want")
    if len(text) > MAX_LETTERS:
        raise CommandError(f"{len(text)} letters are too many: at most {MAX_LETTERS}")
    if any(unicodedata.category(each) == "Cc" and each not in "\t\n\r" for each in text):
        raise CommandError("there are control characters in it: write it without them")
    return text


def _thread(told: int) -> Any:
    return {"configurable": {"thread_id": str(told)}}

"""In what order do an operator's words come into force? Nothing does before a person approves.

understand -> check -> preview -> approve -> act -> follow_up -> record; unclear words lead to one
question back (check -> ask -> understand, or -> check where a guess was right), what cannot be done
goes to the record at once. `ask` and `approve` are interrupts of LangGraph: a checkpoint holds all
that was said, so that an answer may come from another process, or after a crash. Driven by `hmas
tell`.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from hmas_agents.intent.acting import refusals
from hmas_agents.intent.change import Change, ChangeError, Names, Question, read_answer
from hmas_agents.intent.reading import Reader, Reading
from hmas_agents.intent.shown import change_text, time_of_day
from hmas_agents.intent.told import ToldChange, ToldStore
from hmas_agents.records import DecisionRecord, ToolCall
from serving.contracts import ContractInForce, Snapshot, encode

YES, EDIT = "y", "edit"
AGREED = ("y", "yes")  # to whether a guess is meant
LOOK_S = 0.2
Forecast = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the nodes work with.

    Attributes:
        store: what was told; the controller reads it.
        snapshot, held: of the engine, now, and its contract.
        preview: what the twin says of changes.
        record: writes the ledger's row.
        wait_s: how long to wait for the controller to take a change up.
        now: the engine's clock.
    """

    store: ToldStore
    reader: Reader
    snapshot: Snapshot
    held: ContractInForce
    preview: Callable[[Sequence[Change]], Forecast]
    record: Callable[[DecisionRecord], None]
    wait_s: float
    now: Callable[[], float]


class Intent(TypedDict, total=False):
    """What travels along the edges, JSON-ready; the first four come in with the words.

    Attributes:
        at_s: when the text was told, on the engine's clock.
        asked: whether a question was asked back; a second one is not.
        answer: of whom was asked to approve.
    """

    told: int
    by: str
    text: str
    at_s: float
    reply: Any
    confidence: float
    is_clear: bool
    changes: list[dict[str, Any]]
    question: str
    asked: bool
    problems: list[str]
    forecast: Forecast
    answer: str
    outcome: list[dict[str, Any]]


def understand(desk: Desk, work: Intent) -> Intent:
    """Let the reader make changes, or a question, of the text."""
    names = Names.of(desk.held.contract)
    try:
        reading = desk.reader.read(work["text"], time_of_day(work["at_s"]), names)
    except Exception as error:  # noqa: BLE001  whatever a reader trips over, nothing was asked for
        reading = Reading({"question": f"The reader failed: {error!r:.200}. Once more?"}, 0.0)
    return {
        "reply": reading.reply, "confidence": reading.confidence, "is_clear": reading.is_clear,
        "answer": "",
    }  # fmt: skip


def check(desk: Desk, work: Intent) -> Intent:
    """Changes that fit the contract and can act, or what to ask back, or what is in the way."""
    found: Intent = {"changes": [], "question": "", "problems": [], "forecast": {}}
    try:
        answer = read_answer(
            work["reply"], Names.of(desk.held.contract), time_of_day(work["at_s"])
        )
    except ChangeError as error:
        return {**found, "question": str(error)}
    if isinstance(answer, Question):
        return {**found, "question": answer.question}
    if not work["is_clear"]:
        guess = "; ".join(map(change_text, answer))
        return {**found, "question": f"Do you mean {guess}? Say yes, or say it in other words."}
    changes = [each.model_dump(by_alias=True, exclude_none=True) for each in answer]
    return {**found, "changes": changes, "problems": refusals(answer, desk.held)}


def ask(desk: Desk, work: Intent) -> Intent:
    """One question back: whether this is meant, where there is a guess."""
    text = str(interrupt({"question": work["question"]}))
    if isinstance(work["reply"], list) and text.strip().casefold() in AGREED:
        return {"asked": True, "is_clear": True}
    desk.store.reword(work["told"], text)
    return {"text": text, "asked": True, "is_clear": False}


def preview(desk: Desk, work: Intent) -> Intent:
    """What the twin says of it."""
    return {"forecast": desk.preview(_changes(work))}


def approve(desk: Desk, work: Intent) -> Intent:
    """Ask a person: yes, no, or the same in other words."""
    shown = {key: work.get(key) for key in ("changes", "confidence", "forecast")}
    said = interrupt(shown)
    if said["answer"] == EDIT:
        desk.store.reword(work["told"], said["text"])
        return {"answer": EDIT, "text": said["text"], "at_s": desk.now()}
    return {"answer": str(said["answer"])}


def act(desk: Desk, work: Intent) -> Intent:
    """Put the changes where the controller finds them, with the times that they come to."""
    now_s = desk.now()
    changes = [
        ToldChange(work["told"], number, change, *window(change, work["at_s"], now_s))
        for number, change in enumerate(_changes(work))
    ]
    if all(change.is_over(now_s) for change in changes):
        return {"problems": ["their time has passed before somebody approved"]}
    desk.store.approve(work["told"], changes, forecast_text(work["forecast"]))
    return {}


def follow_up(desk: Desk, work: Intent) -> Intent:
    """Wait a little for what the controller makes of it; it goes on without us."""
    until_s = time.monotonic() + desk.wait_s
    while True:
        changes = desk.store.get(work["told"]).changes
        if all(each.state for each in changes) or time.monotonic() >= until_s:
            return {
                "outcome": [
                    {"number": each.number, "from_s": each.from_s, "until_s": each.until_s,
                     "state": each.state, "note": each.note}
                    for each in changes
                ]
            }  # fmt: skip
        time.sleep(LOOK_S)


def record(desk: Desk, work: Intent) -> Intent:
    """What became of the text: into the store, and one row of the ledger."""
    if work.get("problems"):
        desk.store.settle(work["told"], "refused", "; ".join(work["problems"]))
    elif work.get("question"):
        desk.store.settle(work["told"], "unclear", work["question"])
    elif work.get("answer") != YES:
        desk.store.settle(work["told"], "declined")
    told, snapshot = desk.store.get(work["told"]), desk.snapshot
    lines = [change_text(each) for each in _changes(work)]
    args = {key: work.get(key) for key in (
        "told", "by", "text", "reply", "confidence", "question", "problems", "forecast", "answer",
        "outcome",
    )}  # fmt: skip
    call = ToolCall(
        "tell", {"changes": lines, "reader": desk.reader.name, **args},
        accepted=told.state == "approved", reason=f"{told.state} {told.note}".strip(),
    )  # fmt: skip
    row = DecisionRecord(
        horizon="short", at_s=desk.now(), mode="act", trigger="person,tell", state={},
        epoch_before=snapshot.epoch, epoch_after=snapshot.epoch, policy_before=snapshot.policy,
        chosen={"policy": snapshot.policy, "tell": {"by": work["by"]}},
        reason=f"hmas tell, asked by {work['by']}: {work['text']}", tool_calls=[call],
        snapshot_before=encode(snapshot), snapshot_after=encode(snapshot),
    )  # fmt: skip
    desk.record(row)
    return {}


def after_check(work: Intent) -> str:
    """Ask once; then what is not clear or cannot be done ends."""
    if work["question"] and not work.get("asked"):
        return "ask"
    return "record" if work["question"] or work["problems"] else "preview"


def after_answer(work: Intent) -> str:
    """On with a guess that was right, else again with other words."""
    return "check" if work["is_clear"] else "understand"


def after_approval(work: Intent) -> str:
    """On with a yes, again with other words, else the end."""
    return {YES: "act", EDIT: "understand"}.get(work["answer"], "record")


def build_intent(
    desk: Desk, checkpoints: BaseCheckpointSaver[Any]
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The graph; a text is a thread of its number."""
    graph = StateGraph(Intent)
    nodes = (understand, check, ask, preview, approve, act, follow_up, record)
    for node in nodes:
        graph.add_node(node.__name__, partial(node, desk))

    graph.add_edge(START, "understand")
    graph.add_edge("understand", "check")
    graph.add_conditional_edges("check", after_check, ["ask", "record", "preview"])
    graph.add_conditional_edges("ask", after_answer, ["check", "understand"])
    graph.add_edge("preview", "approve")
    graph.add_conditional_edges("approve", after_approval, ["act", "understand", "record"])
    graph.add_conditional_edges(
        "act", lambda work: "record" if work["problems"] else "follow_up", ["record", "follow_up"]
    )
    graph.add_edge("follow_up", "record")
    graph.add_edge("record", END)
    return graph.compile(checkpointer=checkpoints, name="intent")


@contextmanager
def checkpoints_of(store: ToldStore) -> Iterator[BaseCheckpointSaver[Any]]:
    """Checkpoints in the file of what was told."""
    with closing(sqlite3.connect(store.path, timeout=5.0, check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


def window(change: Change, told_s: float, approved_s: float) -> tuple[float, float | None]:
    """When a change begins and ends, on the engine's clock.

    Times of the day were meant when it was told; what begins now begins when it is approved.
    """
    return change.window_s(time_of_day(told_s), told_s - told_s % 60.0, approved_s)


def forecast_text(found: Forecast) -> str:
    """Attainment now and then, in one line."""
    shares = found.get("shares", [])
    return ", ".join(f"{each['name']} {each['now']:.0%} -> {each['then']:.0%}" for each in shares
                     if each["now"] is not None and each["then"] is not None)  # fmt: skip


def _changes(work: Intent) -> list[Change]:
    return [Change.model_validate(each) for each in work.get("changes", [])]

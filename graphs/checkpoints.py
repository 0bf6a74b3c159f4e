"""Where are the steps of a decision kept, so that it can be resumed or forked?

LangGraph's SQLite checkpointer in a file beside the ledger, one thread per long decision,
the newest few. Called by `graphs.control_loop`, which also asks at its start what became of a
decision that was under way when the controller died.
"""

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph.state import CompiledStateGraph

from graphs.checkpoint_format import DecisionFormat
from hmas_agents.situation import Situation
from serving.contracts import Snapshot

logger = logging.getLogger(__name__)

SUFFIX = ".checkpoints"
KEPT_DECISIONS = 30  # at most some ten MB
# Each step is on the disk before the next begins: the nodes change one record in place.
DURABILITY: Literal["sync"] = "sync"


class DecisionSaver(SqliteSaver):
    """A bounded SqliteSaver that never stands in the way: what the disk refuses is not kept.

    Attributes:
        refused: how many writes the disk did not take; the first is logged.
    """

    def __init__(self, path: Path, kept: int = KEPT_DECISIONS) -> None:
        """Open or create the file.

        Raises:
            sqlite3.Error, OSError: it cannot be; see `open_checkpointer`.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        super().__init__(connection, serde=DecisionFormat())
        self.path, self.refused = path, 0
        self._kept = kept
        try:
            self.setup()
        except sqlite3.Error:
            connection.close()
            raise

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a step; where that fails the graph goes on as if it were kept."""
        place: dict[str, Any] = config["configurable"]
        try:
            if not metadata.get("step", 0) > 0:  # a decision begins: make room
                self._forget_oldest()
            return super().put(config, checkpoint, metadata, new_versions)
        except (sqlite3.Error, OSError, TypeError, ValueError) as error:
            self._refuse(error)
            place = {**place, "checkpoint_id": checkpoint["id"]}
            return {"configurable": place}

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep nothing: each step has one node, and the checkpoint after it has all it wrote."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """A step; None also where the file cannot be read."""
        try:
            return super().get_tuple(config)
        except sqlite3.Error as error:
            self._refuse(error)
            return None

    def newest_thread(self) -> str | None:
        """The thread of the decision that was begun last."""
        try:
            with self.cursor(transaction=False) as cursor:
                cursor.execute(
                    "SELECT thread_id FROM checkpoints ORDER BY checkpoint_id DESC LIMIT 1"
                )
                row = cursor.fetchone()
        except sqlite3.Error as error:
            self._refuse(error)
            return None
        return None if row is None else str(row[0])

    def forget(self, thread_id: str) -> None:
        """Drop a decision's steps."""
        try:
            self.delete_thread(thread_id)
        except sqlite3.Error as error:
            self._refuse(error)

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.conn.close()

    def _forget_oldest(self) -> None:
        # Checkpoint ids grow with time.
        with self.cursor() as cursor:
            cursor.execute(
                "DELETE FROM checkpoints WHERE thread_id NOT IN (SELECT thread_id FROM checkpoints "
                "GROUP BY thread_id ORDER BY max(checkpoint_id) DESC LIMIT ?)",
                (self._kept,),
            )

    def _refuse(self, error: Exception) -> None:
        self.refused += 1
        if self.refused == 1:
            logger.warning(
                "%s: checkpoints are not kept (%s); decisions go on, but cannot be forked",
                self.path,
                error,
            )


def open_checkpointer(
    ledger_path: Path | None, kept: int = KEPT_DECISIONS
) -> DecisionSaver | None:
    """The checkpointer beside a ledger, for the newest `kept` decisions.

    None without a ledger, where none are to be kept, or where the disk refuses.
    """
    if ledger_path is None or kept == 0:
        return None
    path = checkpoints_of(ledger_path)
    try:
        return DecisionSaver(path, kept)
    except (sqlite3.Error, OSError) as error:
        logger.warning("%s: no checkpoints are kept: %s", path, error)
        return None


def checkpoints_of(ledger_path: Path) -> Path:
    """The checkpoint file of a ledger."""
    return ledger_path.with_name(ledger_path.name + SUFFIX)


def thread_of(run_id: int, at_s: float) -> str:
    """The thread of the long decision that a run began at `at_s` on the engine's clock."""
    return f"run-{run_id}-at-{at_s:.3f}"


def config_for(thread_id: str) -> RunnableConfig:
    """How a graph is invoked so that its steps are kept under this thread."""
    return {"configurable": {"thread_id": thread_id}}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What became of a decision that was under way when the controller ended, and why."""

    outcome: Literal["nothing", "resumed", "dropped"]
    thread_id: str = ""
    reason: str = ""


def recover(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    saver: DecisionSaver,
    now: Snapshot,
    max_age_s: float,
) -> Recovered:
    """Finish the decision that was under way at the end of the last run, or drop it.

    It is finished only while it still fits: looked at no longer than `max_age_s` ago, and
    nobody, not even its own last step, has changed the engine since (same epoch). So no
    stale decision is ever applied, and none is applied twice.

    Args:
        graph: the long horizon, compiled with `saver`.
        saver: of the ledger that the last run wrote.
        now: the engine as it is.
        max_age_s: on the engine's clock.
    """
    thread_id = saver.newest_thread()
    if thread_id is None:
        return Recovered("nothing")
    config = config_for(thread_id)
    try:
        state = graph.get_state(config)
    except ValueError as error:  # of another version
        saver.forget(thread_id)
        return Recovered("dropped", thread_id, f"cannot be read: {error}"[:200])
    if not state.next:
        return Recovered("nothing")
    if misfit := _misfit(state.values.get("situation"), now, max_age_s):
        saver.forget(thread_id)
        return Recovered("dropped", thread_id, misfit)
    graph.invoke(None, config, durability=DURABILITY)
    return Recovered("resumed", thread_id, f"before {', '.join(state.next)}")


def _misfit(situation: Situation | None, now: Snapshot, max_age_s: float) -> str:
    """Why a half-done decision no longer fits the engine; empty when it does."""
    if situation is None:
        return "the engine had not been looked at yet"
    seen = situation.snapshot
    age_s = now.now_s - seen.now_s
    if not 0 <= age_s <= max_age_s:
        return f"{age_s:.0f} s old, at most {max_age_s:g} s are allowed"
    if (seen.epoch, seen.policy) != (now.epoch, now.policy):
        return f"the engine went on from epoch {seen.epoch} to {now.epoch}"
    return ""

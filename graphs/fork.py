"""How would this decision have gone on, had one thing been different? Re-runs it from a step.

Takes the steps of a long decision from its checkpoints, changes the prompt, the model or the
proposals, and lets the same graph go on from there, on a recorded engine and in advise mode.
Called by `hmas fork`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph

from graphs.checkpoint_format import DecisionFormat
from graphs.checkpoints import DecisionSaver, checkpoints_of, config_for
from graphs.long_horizon import build_long_horizon
from graphs.parts import build_parts
from graphs.recorded_engine import RecordedEngine
from hmas_agents.config import Config
from hmas_agents.records import DecisionRecord, Proposal
from hmas_agents.situation import Situation
from hmas_agents.twin_process import Forecaster

# From which step on the graph runs again, and the step whose place the fork takes.
Step = Literal["summarise", "propose", "verify"]
BEFORE: dict[Step, str] = {"summarise": "observe", "propose": "summarise", "verify": "propose"}
CONTROLLER = "hmas-fork"


class ForkError(ValueError):
    """A decision that cannot be forked; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be different.

    Attributes:
        step: the first step that runs again.
        proposals: joined to those of the decision before `verify` (step `verify` only).
        config: of the run, with the changes to model and prompt.
        switched_at_s: engine times of the switches before, for the guardrails.
        past: (predicted, realised) of the decisions settled by then, for the twin's error.
    """

    step: Step
    config: Config
    proposals: Sequence[Proposal] = ()
    switched_at_s: Sequence[float] = ()
    past: Sequence[tuple[float, float]] = ()


def fork(
    ledger_path: Path, thread_id: str, change: Change, forecaster: Forecaster | None = None
) -> DecisionRecord:
    """The decision as it would have been recorded. Nothing is applied or stored.

    Args:
        ledger_path: of the run; its checkpoints lie beside it.
        thread_id: of the decision.
        change: what is different.
        forecaster: where the twin computes; None means in a process of its own.

    Raises:
        ForkError: the steps of the decision are not kept (any more).
        PromptError: the prompt cannot be used.
    """
    path = checkpoints_of(ledger_path)
    if not path.is_file():
        raise ForkError(f"{path}: no checkpoints there; `hmas run` keeps them beside its ledger")
    saver = DecisionSaver(path)
    try:
        values = _values(saver, thread_id, change)
    finally:
        saver.close()
    situation: Situation = values["situation"]
    records: list[DecisionRecord] = []
    parts = build_parts(
        RecordedEngine(situation),
        _advising(change.config),
        None,
        run_label="",
        controller_id=CONTROLLER,
        on_decision=records.append,
        forecaster=forecaster,
    )
    parts.switched_at_s += change.switched_at_s
    if parts.twin is not None:
        for predicted, realised in change.past:
            parts.twin.observe(predicted, realised)
    try:
        _go_on(build_long_horizon(parts), values, change.step)
    finally:
        parts.close()
    return records[-1]


def _values(saver: DecisionSaver, thread_id: str, change: Change) -> dict[str, Any]:
    """What travelled along the edge into the step, with the further proposals."""
    wanted = BEFORE[change.step]
    for kept in saver.list(config_for(thread_id)):
        values: dict[str, Any] = kept.checkpoint["channel_values"]
        if f"branch:to:{change.step}" in values:
            values = {key: value for key, value in values.items() if ":" not in key}
            record: DecisionRecord = values["record"]
            values["record"] = replace(
                record,
                mode="advise",
                proposals=[*record.proposals, *change.proposals],
                thread_id="",
            )
            return values | {"budget_s": None}
    raise ForkError(
        f"{saver.path}: the step {wanted!r} of {thread_id!r} is not kept (the newest decisions "
        "are); `hmas replay` re-asks any decision of the ledger"
    )


def _advising(config: Config) -> Config:
    control = config.control.model_copy(update={"mode": "advise"})
    return config.model_copy(update={"control": control})


def _go_on(
    graph: CompiledStateGraph[Any, Any, Any, Any], values: dict[str, Any], step: Step
) -> None:
    graph.checkpointer = InMemorySaver(serde=DecisionFormat())
    config = config_for("fork")
    graph.update_state(config, values, as_node=BEFORE[step])
    graph.invoke(None, config)

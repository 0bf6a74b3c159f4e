"""What is a tool?

A verb_noun name, typed arguments with bounds and a mandatory reason, and the change
it asks of the session. Each module in this folder that defines `TOOL` is one tool.
A tool answers with a `ToolResult` and never raises: the graph goes on either way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.contracts import Snapshot, encode
from serving.engines.protocol import EngineUnavailable
from tools.session import ControlSession


class ToolArgs(BaseModel):
    """Arguments every tool takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str = Field(min_length=1, max_length=200, description="Why, in one short sentence.")


class ToolResult(BaseModel):
    """What came of a call. `before` and `after` are the engine's own report around it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    accepted: bool
    epoch: int = 0
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    reason: str = ""
    clamped: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Tool:
    """One verb an agent may use.

    Attributes:
        change: from validated arguments to the keyword arguments of `ControlSession.change`.
    """

    name: str
    description: str
    args: type[ToolArgs]
    change: Callable[[Any], dict[str, Any]]

    def call(self, session: ControlSession, args: dict[str, Any]) -> ToolResult:
        """Validate, apply, and say what happened. Bad arguments and a dead engine are results."""
        try:
            valid = self.args.model_validate(args)
        except ValidationError as error:
            return ToolResult(accepted=False, reason=self.explain(error))
        try:
            with session.lock:
                before = session.engine.snapshot()
                ack = session.change(reason=valid.reason, seen=before, **self.change(valid))
                after = session.engine.snapshot() if ack.accepted else before
        except EngineUnavailable as error:
            return ToolResult(accepted=False, reason=f"engine unavailable: {error}")
        return ToolResult(
            accepted=ack.accepted,
            epoch=ack.epoch,
            before=in_force(before),
            after=in_force(after),
            reason=ack.reason,
            clamped=ack.clamped,
        )

    def explain(self, error: ValidationError) -> str:
        """The first offending argument, its value, and what was expected."""
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "arguments"
        return f"{self.name}.{key}: {first['msg']} (got {first['input']!r})"


def in_force(snapshot: Snapshot) -> dict[str, Any]:
    """Epoch, policy, parameters and limits, flat."""
    return {
        "epoch": snapshot.epoch,
        "policy": snapshot.policy,
        "params": dict(snapshot.params),
        **encode(snapshot.limits),
    }

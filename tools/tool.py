"""What is a tool?

A typed function decorated with `@tool`: its name is the verb_noun that agents call, its
docstring the description, its annotated parameters the arguments with their bounds, and
its return the change that it asks of the session. Every tool also takes a reason.
A tool answers with a `ToolResult` and never raises: the graph goes on either way.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from serving.contracts import Limits, Snapshot, decode, encode
from serving.contracts.limits import Knob
from serving.contracts.rules import KNOBS
from serving.engines.protocol import EngineUnavailable
from tools.session import ControlSession

Change = dict[str, Any]
_ANY_LIMITS = {"max_active_requests": 1, "token_budget": 1}  # the two without a default
_MOST = 1_000_000  # of what the server bounds more closely; keeps absurd numbers out of JSON


class ToolError(ValueError):
    """A tool that cannot be used: `FILE:LINE: what is wrong`."""


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
    """One verb an agent may use; made by `@tool`.

    Attributes:
        change: from arguments within bounds to what of `ControlSession.change` to set: a
            policy, its params, or fields of `serving.contracts.Limits`. A ValueError says
            why these arguments may not be.
    """

    name: str
    description: str
    args: type[ToolArgs]
    change: Callable[..., Change]

    def call(self, session: ControlSession, args: dict[str, Any]) -> ToolResult:
        """Validate, apply, and say what happened. Bad arguments and a dead engine are results."""
        try:
            valid = self.args.model_validate(args)
        except ValidationError as error:
            return ToolResult(accepted=False, reason=self.explain(error))
        try:
            change = self._asked(valid)
        except ValueError as error:
            return ToolResult(accepted=False, reason=f"{self.name}.arguments: {error}")
        except Exception as error:  # noqa: BLE001  a slip in an edited tool must not stop control
            failed = f"{self.name}: failed, nothing changed: {type(error).__name__}: {error}"
            return ToolResult(accepted=False, reason=failed)
        try:
            with session.lock:
                before = session.engine.snapshot()
                ack = session.change(reason=valid.reason, seen=before, **change)
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

    def _asked(self, valid: ToolArgs) -> Change:
        """What the function asks for, if the session can do it."""
        given = {name: getattr(valid, name) for name in type(valid).model_fields}
        given.pop("reason")
        change = self.change(**given)
        lasting = {name: change[name] for name in ("policy", "params") if name in change}
        asked = {name: value for name, value in change.items() if name not in lasting}
        checked = decode(Limits, _ANY_LIMITS | asked)  # a wrong name or type is the tool's fault
        return lasting | {name: getattr(checked, name) for name in asked}


def tool(function: Callable[..., Change]) -> Tool:
    """Make a tool of a typed function.

    Raises:
        ToolError: no docstring, or a parameter without a type or a description.
    """
    code, name = function.__code__, function.__name__
    where = f"{code.co_filename}:{code.co_firstlineno}: {name}"
    description = " ".join((inspect.getdoc(function) or "").split())
    if not description:
        raise ToolError(f"{where}: needs a docstring: it is what agents and `hmas tools` read")
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise ToolError(f"{where}: its types cannot be read: {error}") from error
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hints or parameter.kind in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        }:
            raise ToolError(f"{where}.{parameter.name}: must be a plain parameter with a type")
        if parameter.name in ToolArgs.model_fields:
            raise ToolError(f"{where}.{parameter.name}: every tool has it already: leave it out")
        default = ... if parameter.default is parameter.empty else parameter.default
        arguments[parameter.name] = (hints[parameter.name], default)
    args = _args_model(name, arguments, where)
    for key, field in args.model_fields.items():
        if not field.description:
            raise ToolError(
                f"{where}.{key}: needs Annotated[..., Field(description=...)]: say what it means"
            )
    return Tool(name, description, args, function)


def limit_field(limit: str) -> Any:
    """The annotation of an argument that goes into a field of `Limits`: its bounds and text."""
    knob = KNOBS[limit]
    return Field(**_bounds(knob), description=knob.text)


def limit_tool(limit: str) -> Tool:
    """The tool that sets one field of `Limits`; all that it is comes from the field's row."""
    knob = KNOBS[limit]
    value: Any = Field(**_bounds(knob), description=f"Value: {knob.unit or 'on or off'}.")
    argument = {knob.argument: (Annotated[knob.kind, value], ...)}
    args = _args_model(knob.tool, argument, knob.tool)
    return Tool(knob.tool, knob.text, args, lambda **given: {limit: given[knob.argument]})


def _bounds(knob: Knob) -> dict[str, Any]:
    high = _MOST if isinstance(knob.high, str) else knob.tool_high or knob.high
    return {"ge": knob.low, "le": high} if knob.unit else {}


def in_force(snapshot: Snapshot) -> dict[str, Any]:
    """Epoch, policy, parameters and limits, flat."""
    return {
        "epoch": snapshot.epoch,
        "policy": snapshot.policy,
        "params": dict(snapshot.params),
        **encode(snapshot.limits),
    }


def _args_model(name: str, arguments: dict[str, Any], where: str) -> type[ToolArgs]:
    title = "".join(word.capitalize() for word in name.split("_")) + "Args"
    try:
        return create_model(title, __base__=ToolArgs, **arguments)
    except Exception as error:  # pydantic raises several kinds for types that it cannot check
        raise ToolError(f"{where}: its types cannot be checked: {error}") from error

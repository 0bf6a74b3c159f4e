"""A typed function is a tool; one that agents could not use safely is refused by name and line."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from serving.contracts import Limits
from tests.fakes import FakeEngine
from tools import ControlSession, Tool, ToolError
from tools.tool import Change, tool

Share = Annotated[float, Field(ge=0.0, le=0.5, description="How much.")]


@tool
def set_share(
    share: Share, twice: Annotated[bool, Field(description="Double it.")] = False
) -> Change:
    """Keep a share free.

    More words.
    """
    return {"prefill_share": share * (2 if twice else 1)}


def answering(value: Any) -> Tool:
    """A tool that asks for `value`, or fails with it."""

    @tool
    def set_thing() -> Change:
        """Set a thing."""
        if isinstance(value, Exception):
            raise value
        return value  # type: ignore[no-any-return]

    return set_thing


def call(one: Tool, engine: FakeEngine, **args: Any) -> Any:
    return one.call(ControlSession(engine, "me", 10.0, False), {**args, "reason": "test"})


def test_the_schema_and_description_are_read_from_the_function():
    schema = set_share.args.model_json_schema()
    assert set_share.name == "set_share"
    assert set_share.description == "Keep a share free. More words."
    assert schema["required"] == ["reason", "share"]
    assert (schema["properties"]["share"]["maximum"], schema["additionalProperties"]) == (
        0.5,
        False,
    )
    assert schema["properties"]["twice"]["default"] is False


def test_arguments_reach_the_function_and_its_change_the_engine():
    engine = FakeEngine()
    assert call(set_share, engine, share=0.1, twice=True).accepted
    assert engine.limits.prefill_share == 0.2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"kv_reserv": 0.1}, "kv_reserv"),
        ({"prefill_share": "much"}, "prefill_share"),
        ({"reason": "another"}, "reason"),
        ({"seen": None}, "seen"),
        (None, "failed, nothing changed: "),
        (KeyError("x"), "failed, nothing changed: KeyError: 'x'"),
        (ValueError("not today"), "set_thing.arguments: not today"),
    ],
)
def test_a_change_that_is_none_is_a_refusal_and_nothing_happens(value, said):
    engine = FakeEngine()
    result = call(answering(value), engine)
    assert not result.accepted
    assert result.reason.startswith("set_thing")
    assert said in result.reason
    assert (engine.applied, engine.limits) == ([], FakeEngine().limits)


def test_numbers_written_as_text_arrive_as_numbers():
    engine = FakeEngine()
    assert call(answering({"prefill_share": "0.25"}), engine).accepted
    assert engine.limits == Limits(64, 2048, prefill_share=0.25)


def no_docstring(share: Share) -> Change:
    return {"prefill_share": share}


def no_type(share) -> Change:
    """Set."""
    return {"prefill_share": share}


def no_description(share: float) -> Change:
    """Set."""
    return {"prefill_share": share}


def any_number(*shares: Share) -> Change:
    """Set."""
    return {"prefill_share": shares[0]}


def own_reason(reason: Share) -> Change:
    """Set."""
    return {"prefill_share": reason}


def unknown_type(share: "Nowhere") -> Change:  # type: ignore[name-defined]  # noqa: F821
    """Set."""
    return {"prefill_share": share}


class Odd:
    """Nothing that JSON could hold."""


def unchecked_type(share: Annotated[Odd, Field(description="x")]) -> Change:
    """Set."""
    return {"prefill_share": share}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "no_docstring: needs a docstring"),
        (no_type, "no_type.share: must be a plain parameter with a type"),
        (no_description, "no_description.share: needs Annotated"),
        (any_number, "any_number.shares: must be a plain parameter"),
        (own_reason, "own_reason.reason: every tool has it already"),
        (unknown_type, "unknown_type: its types cannot be read"),
        (unchecked_type, "unchecked_type: its types cannot be"),
    ],
)
def test_a_function_that_does_not_say_enough_is_no_tool(function, said):
    line = function.__code__.co_firstlineno
    with pytest.raises(ToolError) as caught:
        tool(function)
    assert f"test_tool.py:{line}: {said}" in str(caught.value)

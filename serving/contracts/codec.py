"""How does a message become JSON, and JSON a message?"""

from functools import cache
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(extra="forbid")

T = TypeVar("T")


class ContractError(ValueError):
    """A message that does not fit its contract; says which key and why."""


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def encode(message: Any) -> dict[str, Any]:
    """A JSON-ready dictionary of a message on this page."""
    kind: Any = type(message)
    encoded: dict[str, Any] = _adapter(kind).dump_python(message, warnings=False)
    return encoded


def decode(cls: type[T], data: object) -> T:
    """Build a `cls` from decoded JSON.

    Raises:
        ContractError: names the first offending key, its value and what was expected.
    """
    kind: Any = cls
    try:
        message: T = _adapter(kind).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or cls.__name__
        what = f"{cls.__name__}.{key}: {first['msg']} (got {first['input']!r})"
        raise ContractError(what) from error
    return message

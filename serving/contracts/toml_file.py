"""How is a TOML file read so that an error names the file, the line and the key?

Used for contracts, and by the evals for suites and profiles.
"""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from serving.contracts.near_names import choices

T = TypeVar("T")


def read_toml(path: Path, kind: type[T], error_type: type[ValueError]) -> T:
    """Read and validate a TOML file as `kind`.

    Raises:
        ValueError: of `error_type`: `FILE:LINE: key: what is wrong`, a line for each problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise error_type(f"{path}: not UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = line[1] if line else len(text.splitlines())
        raise error_type(f"{path}:{where}: not TOML: {error}") from error
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        # An unknown key first: it is often the misspelling behind a missing one.
        problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        lines = [_explain(path, text, each, kind) for each in problems]
        raise error_type("\n".join(lines)) from error


def described(path: Path, text: str, loc: Sequence[int | str], problem: str) -> str:
    """`FILE:LINE: key: problem`."""
    key = ".".join(str(part) for part in loc)
    return f"{path}:{line_of(text, loc)}: {key + ': ' if key else ''}{problem}"


def _explain(path: Path, text: str, error: ErrorDetails, kind: type[Any]) -> str:
    plain = not isinstance(error["input"], dict | list)
    given = f" (got {error['input']!r})" if plain else ""
    context = error.get("ctx", {})
    if "at" in context:  # found by looking at the whole: it knows the key itself
        return described(path, text, context["at"], context["problem"])
    if error["type"] == "extra_forbidden":
        known = choices(str(error["loc"][-1]), _keys(kind, error["loc"]))
        return described(path, text, error["loc"], f"unknown key; {known}")
    problem = error["msg"].removeprefix("Value error, ") + given
    return described(path, text, error["loc"], problem)


def _keys(kind: type[Any], loc: Sequence[int | str]) -> list[str]:
    """The keys that the table around `loc` may have."""
    table: Any = kind
    for part in loc[:-1]:  # places in lists and names of tables change nothing
        if part in _fields(table):
            table = next(_tables(_fields(table)[part]), None)
    return list(_fields(table))


def _fields(table: Any) -> dict[Any, Any]:
    fields = getattr(table, "model_fields", None) or getattr(table, "__dataclass_fields__", {})
    return {key: getattr(field, "annotation", None) or field.type for key, field in fields.items()}


def _tables(annotation: Any) -> Iterator[Any]:
    """The tables in an annotation such as `tuple[Scenario, ...]`."""
    if _fields(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)


def line_of(text: str, loc: Sequence[int | str]) -> int:
    """The line of the key at `loc`, or of the innermost table on the way to it; 1 if none.

    Enough TOML for our own files: a table's header and `key = value` begin a line.
    """
    best, depth = 1, 0
    table: list[int | str] = []
    counts: dict[tuple[int | str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        entry = re.match(r"(?:[\w\-.]|\"[^\"]*\"|'[^']*'|\s)+(?==)", stripped)
        if stripped.startswith("["):
            table, parts = [], _path(stripped)
            for i, part in enumerate(parts):
                table.append(part)
                array = tuple(table)
                if stripped.startswith("[[") and i == len(parts) - 1:
                    counts[array] = counts.get(array, -1) + 1
                if array in counts:
                    table.append(counts[array])
            path = table
        elif entry:
            path = [*table, *_path(f"{entry[0]}= 0")]
        else:
            continue
        shared = min(len(path), len(loc))
        if shared > depth and path[:shared] == list(loc[:shared]):
            best, depth = number, shared
    return best


def _path(line: str) -> list[int | str]:
    """The keys that lead to what a line of TOML opens or sets; none if it is no TOML."""
    try:
        at: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return []
    path: list[int | str] = []
    while isinstance(at, dict) and at:
        ((key, at),) = at.items()
        path.append(key)
    return path

"""How is a TOML file read so that an error names the file, the line and the key?

Used for contracts, and by the evals for suites and profiles.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

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
        raise error_type("\n".join(_explain(path, text, each) for each in problems)) from error


def described(path: Path, text: str, loc: Sequence[int | str], problem: str) -> str:
    """`FILE:LINE: key: problem`."""
    key = ".".join(str(part) for part in loc)
    return f"{path}:{line_of(text, loc)}: {key + ': ' if key else ''}{problem}"


def _explain(path: Path, text: str, error: ErrorDetails) -> str:
    plain = not isinstance(error["input"], dict | list)
    given = f" (got {error['input']!r})" if plain else ""
    context = error.get("ctx", {})
    if "at" in context:  # found by looking at the whole: it knows the key itself
        return described(path, text, context["at"], context["problem"])
    problem = error["msg"].removeprefix("Value error, ") + given
    return described(path, text, error["loc"], problem)


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

"""How is a TOML file read so that an error names the file, the line and the key?

Used for suites and profiles.
"""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

T = TypeVar("T")


class SuiteError(ValueError):
    """A suite or profile that cannot be used; names the file, the line and the key."""


def read_toml(path: Path, kind: type[T]) -> T:
    """Read and validate a TOML file as `kind`.

    Raises:
        SuiteError: `FILE:LINE: key: what is wrong`, a line for each problem.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data: dict[str, Any] = tomllib.loads(text)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not UTF-8 text: {error.reason}") from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = line[1] if line else len(text.splitlines())
        raise SuiteError(f"{path}:{where}: not TOML: {error}") from error
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        # An unknown key first: it is often the misspelling behind a missing one.
        problems = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise SuiteError("\n".join(_explain(path, text, each) for each in problems)) from error


def key_error(path: Path, loc: Sequence[int | str], problem: str) -> SuiteError:
    """The error for a key whose value is well formed but does not fit the rest of the file."""
    text = path.read_text(encoding="utf-8")
    return SuiteError(f"{path}:{line_of(text, loc)}: {_dotted(loc)}: {problem}")


def _explain(path: Path, text: str, error: ErrorDetails) -> str:
    plain = not isinstance(error["input"], dict | list)
    given = f" (got {error['input']!r})" if plain else ""
    what = error["msg"].removeprefix("Value error, ") + given
    return f"{path}:{line_of(text, error['loc'])}: {_dotted(error['loc'])}: {what}"


def _dotted(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc)


def line_of(text: str, loc: Sequence[int | str]) -> int:
    """The line of the key at `loc`, or of the innermost table on the way to it; 1 if none.

    Enough TOML for our own files: `[a.b]`, `[[a.b]]` and `key = value`, no dotted keys.
    """
    best, depth = 1, 0
    table: list[int | str] = []
    counts: dict[tuple[int | str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*(\[\[?)\s*([\w.\-]+)\s*\]", line)
        entry = re.match(r"\s*([\w\-]+)\s*=", line)
        if header:
            table = []
            parts = header[2].split(".")
            for i, part in enumerate(parts):
                table.append(part)
                array = tuple(table)
                if header[1] == "[[" and i == len(parts) - 1:
                    counts[array] = counts.get(array, -1) + 1
                if array in counts:
                    table.append(counts[array])
            path = table
        elif entry:
            path = [*table, entry[1]]
        else:
            continue
        shared = min(len(path), len(loc))
        if shared > depth and path[:shared] == list(loc[:shared]):
            best, depth = number, shared
    return best

"""How is a suite or a profile read so that an error names the file, the line and the key?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from serving.contracts import toml_file

T = TypeVar("T")


class SuiteError(ValueError):
    """A suite or profile that cannot be used; names the file, the line and the key."""


def read_toml(path: Path, kind: type[T]) -> T:
    """Read and validate a TOML file as `kind`.

    Raises:
        SuiteError: `FILE:LINE: key: what is wrong`, a line for each problem.
    """
    return toml_file.read_toml(path, kind, SuiteError)


def key_error(path: Path, loc: Sequence[int | str], problem: str) -> SuiteError:
    """The error for a key whose value is well formed but does not fit the rest of the file."""
    return SuiteError(toml_file.described(path, path.read_text(encoding="utf-8"), loc, problem))

"""Which trace formats can be read? Called by scenarios, plans and the command line.

`FORMATS` maps a format's name to its reader; a new reader joins with one line. ServeGen's
clients are no list of requests: `evals.requests.servegen` draws some.
"""

from collections.abc import Callable
from pathlib import Path

from evals.requests import azure, burstgpt, mooncake
from evals.requests.trace import Trace, TraceError

FORMATS: dict[str, Callable[[Path], Trace]] = {
    "azure": azure.read,
    "mooncake": mooncake.read,
    "burstgpt": burstgpt.read,
}


def format_of(path: Path) -> str:
    """The format of a trace that nobody has named: a folder is ServeGen's."""
    if path.is_dir():
        return "servegen"
    return "mooncake" if ".jsonl" in path.suffixes else "azure"


def read_trace(path: Path, form: str) -> Trace:
    """Read a trace in one of `FORMATS`.

    Raises:
        TraceError: as the reader says.
    """
    try:
        return FORMATS[form](path)
    except TraceError as error:
        hint = f" (read as {form}: see --format)" if path.is_file() else ""
        raise TraceError(f"{error}{hint}") from error

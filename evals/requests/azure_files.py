"""Where are the public traces on this machine, and how do the Azure ones of 2023 get here?

Looked for in the folder `HMAS_TRACES` names, then in `var/traces`; downloaded there
by `hmas traces fetch`. They are CC-BY and no part of this repository.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx

from evals.requests.trace import TraceError

SOURCE = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data"
HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "var" / "traces"

OnProgress = Callable[[int, int | None], None]  # done, of how many if that is known


class AzureFile(NamedTuple):
    """One published file; `rows` does not count the header."""

    name: str
    rows: int


AZURE_FILES = {
    "azure-conv": AzureFile("AzureLLMInferenceTrace_conv.csv", 19_366),
    "azure-code": AzureFile("AzureLLMInferenceTrace_code.csv", 8_819),
}


def find_trace(pattern: str) -> Path | None:
    """The first file of that name below the folders with traces; None: not on this machine.

    Raises:
        TraceError: `HMAS_TRACES` is set but is not a folder.
    """
    named = os.environ.get("HMAS_TRACES")
    if named and not Path(named).is_dir():
        raise TraceError(f"HMAS_TRACES: {named!r} is not a folder")
    for folder in (*([Path(named)] if named else []), DEFAULT_FOLDER):
        if found := sorted(folder.rglob(pattern)):
            return found[0]
    return None


def find_azure(trace: str) -> Path | None:
    """The file of an Azure trace; as `find_trace`."""
    return find_trace(AZURE_FILES[trace].name)


def fetch_azure(
    file: AzureFile, folder: Path, on_progress: OnProgress, client: httpx.Client
) -> None:
    """Download one trace into `folder`; progress is in bytes.

    Raises:
        TraceError: no network, an HTTP error, or a file that is not as published.
    """

    def check(path: Path) -> None:
        header, *rows = path.read_bytes().splitlines() or [b""]
        if header.strip() != HEADER:
            raise TraceError(f"{file.name}:1: expected the header {HEADER!r}, got {header[:80]!r}")
        if (count := sum(1 for row in rows if row.strip())) != file.rows:
            raise TraceError(f"{file.name}: expected {file.rows} rows as published, got {count}")

    download(f"{SOURCE}/{file.name}", folder / file.name, check, on_progress, client)


def download(
    url: str, target: Path, check: Callable[[Path], object], on_progress: OnProgress,
    client: httpx.Client,
) -> None:  # fmt: skip
    """Download one file; it appears only when it is whole and `check` raises nothing.

    Raises:
        TraceError: no network, an HTTP error, a disk that cannot be written; or as `check` does.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with client.stream("GET", url) as response, partial.open("wb") as out:
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None  # encoded bytes, as progress is
            for piece in response.iter_bytes():
                out.write(piece)
                on_progress(response.num_bytes_downloaded, total)
        check(partial)
        partial.replace(target)
    except httpx.HTTPError as error:
        raise TraceError(
            f"{url}: download failed: {error or type(error).__name__}. Set HMAS_TRACES to a folder "
            "that has the file, or take another trace"
        ) from error
    except OSError as error:
        raise TraceError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)

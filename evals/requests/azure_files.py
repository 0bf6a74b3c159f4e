"""Where are the Azure 2023 traces on this machine, and how do they get here?

Looked for in the folder `HMAS_TRACES` names, then in `var/traces`; downloaded there
by `hmas traces fetch`. They are CC-BY and no part of this repository.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from evals.requests.trace import TraceError

SOURCE = "https://raw.githubusercontent.com/Azure/AzurePublicDataset/master/data"
HEADER = b"TIMESTAMP,ContextTokens,GeneratedTokens"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "var" / "traces"


@dataclass(frozen=True, slots=True)
class AzureFile:
    """One published file; `rows` does not count the header."""

    name: str
    rows: int


AZURE_FILES = {
    "azure-conv": AzureFile("AzureLLMInferenceTrace_conv.csv", 19_366),
    "azure-code": AzureFile("AzureLLMInferenceTrace_code.csv", 8_819),
}


def find_azure(trace: str) -> Path | None:
    """The file of a trace, searched recursively; None when it is not on this machine.

    Raises:
        TraceError: `HMAS_TRACES` is set but is not a folder.
    """
    for folder in searched_folders():
        found = sorted(folder.rglob(AZURE_FILES[trace].name))
        if found:
            return found[0]
    return None


def searched_folders() -> list[Path]:
    """Where traces may lie on this machine, the first place first.

    Raises:
        TraceError: `HMAS_TRACES` is set but is not a folder.
    """
    named = os.environ.get("HMAS_TRACES")
    if named and not Path(named).is_dir():
        raise TraceError(f"HMAS_TRACES: {named!r} is not a folder")
    folders = [Path(named)] if named else []
    return [folder for folder in (*folders, DEFAULT_FOLDER) if folder.is_dir()]


def fetch_azure(
    file: AzureFile,
    folder: Path,
    on_progress: Callable[[int, int | None], None],
    client: httpx.Client,
) -> Path:
    """Download one trace into `folder`; the file appears only when it is whole and checked.

    `on_progress(bytes so far, bytes in all or None)` is called for each piece.

    Raises:
        TraceError: no network, an HTTP error, or a file that is not as published.
    """
    url = f"{SOURCE}/{file.name}"
    return download(
        url, folder / file.name, lambda part: check_published(part, file), on_progress, client,
        "take another trace",
    )  # fmt: skip


def download(
    url: str, target: Path, check: Callable[[Path], object],
    on_progress: Callable[[int, int | None], None], client: httpx.Client, otherwise: str,
) -> Path:  # fmt: skip
    """Download one file; it appears only when it is whole and `check` raises nothing.

    `on_progress(bytes so far, bytes in all or None)` is called for each piece. `otherwise` is
    what to do without the file.

    Raises:
        TraceError: no network, an HTTP error, a disk that cannot be written; or as `check` does.
    """
    partial = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with client.stream("GET", url) as response, partial.open("wb") as out:
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            # Content-Length counts encoded bytes, so progress does too.
            for piece in response.iter_bytes():
                out.write(piece)
                on_progress(
                    response.num_bytes_downloaded, int(length) if length.isdigit() else None
                )
        check(partial)
        partial.replace(target)
    except httpx.HTTPError as error:
        raise TraceError(
            f"{url}: download failed: {error or type(error).__name__}. Set HMAS_TRACES to a folder "
            f"that has the file, or {otherwise}"
        ) from error
    except OSError as error:
        raise TraceError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def check_published(path: Path, file: AzureFile) -> None:
    """Check the header and the number of rows of a downloaded file.

    Raises:
        TraceError: either differs from what was published.
    """
    lines = path.read_bytes().splitlines()
    if not lines or lines[0].strip() != HEADER:
        got = lines[0][:80] if lines else b""
        raise TraceError(f"{file.name}:1: expected the header {HEADER!r}, got {got!r}")
    rows = sum(1 for line in lines[1:] if line.strip())
    if rows != file.rows:
        raise TraceError(f"{file.name}: expected {file.rows} rows as published, got {rows}")

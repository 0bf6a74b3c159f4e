"""Which trace formats can be read, and how is a row of each? Called by scenarios and plans.

A new format is a reader in `FORMATS`. ServeGen's clients are no list of requests:
`evals.requests.servegen` draws some.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from evals.requests.trace import (
    BadLineError,
    Trace,
    TraceError,
    csv_rows,
    numbered_lines,
    read_rows,
    shown,
)
from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Tokens = Annotated[int, Field(ge=1, le=10**9)]
_Clock = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _unix_s(text: str) -> float:
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError("expected YYYY-MM-DD HH:MM:SS.fffffff")
    # Seven fractional digits (100 ns) are one more than Python's datetime takes. A float of Unix
    # seconds keeps about 200 ns; rounding to the first arrival hides the rest.
    whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    return whole.timestamp() + float(f"0.{match[2] or 0}")


class _AzureRow(BaseModel):
    TIMESTAMP: Annotated[float, BeforeValidator(_unix_s)]
    ContextTokens: _Tokens
    GeneratedTokens: _Tokens


def read_azure(path: Path) -> Trace:
    """An Azure LLM inference trace (2023), as in Azure/AzurePublicDataset.

    Raises:
        TraceError: the header is wrong or no row is usable; names file, line and column.
    """

    def parse(fields: Any) -> TraceRequest:
        row = _AzureRow.model_validate(fields)
        return TraceRequest(row.TIMESTAMP, row.ContextTokens, row.GeneratedTokens)

    return read_rows(path, csv_rows(path, tuple(_AzureRow.model_fields)), parse)


class _MooncakeRow(BaseModel, strict=True):
    timestamp: _Clock  # milliseconds
    input_length: _Tokens
    output_length: _Tokens
    hash_ids: list[Annotated[int, Field(ge=0)]]


def read_mooncake(path: Path) -> Trace:
    """A Mooncake trace, as in the FAST25 release of kvcache-ai/Mooncake.

    Each hash id names one 512-token block of the prompt, the last one what is left over, and
    shared blocks have the same id.

    Raises:
        TraceError: no line is usable; names file, line and key.
    """
    return read_rows(path, numbered_lines(path), _mooncake)


def _mooncake(line: str) -> TraceRequest:
    try:
        document = json.loads(line.rstrip())
    except json.JSONDecodeError as error:  # its text counts lines too, and means this one
        raise BadLineError(f"line: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"line: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadLineError(f"line: expected an object, got {shown(document)}")
    row = _MooncakeRow.model_validate(document)
    if len(row.hash_ids) > (most := -(-row.input_length // PREFIX_BLOCK_TOKENS)):
        raise BadLineError(
            f"hash_ids: {len(row.hash_ids)} blocks of {PREFIX_BLOCK_TOKENS} do not fit "
            f"input_length {row.input_length} (at most {most})"
        )
    return TraceRequest(
        row.timestamp / 1000, row.input_length, row.output_length, prefix=tuple(row.hash_ids)
    )


class _BurstRow(BaseModel):
    arrival_s: _Clock = Field(alias="Timestamp")
    prompt: _Count = Field(alias="Request tokens")
    output: _Count = Field(alias="Response tokens")
    total: _Count = Field(alias="Total tokens")
    session: str = Field("", alias="Session ID")


class _Session:
    """Names for the blocks of 512 tokens of a session's prompts, in the order of the file."""

    def __init__(self, number: int) -> None:
        self._base, self._begun, self._tokens = number << 32, 0, 0

    def blocks(self, prompt_tokens: int) -> tuple[int, ...]:
        """Of its next prompt."""
        if prompt_tokens <= self._tokens:
            self._begun += 1
        self._tokens = prompt_tokens
        first = self._base + (self._begun << 16)
        return tuple(range(first, first + prompt_tokens // PREFIX_BLOCK_TOKENS))


def read_burstgpt(path: Path) -> Trace:
    """A trace of HPMLL/BurstGPT; release 2 has sessions and further columns in between.

    Zero response tokens record a request that failed: such rows are left out and counted. Nothing
    says what a prompt holds, so one that is longer than the prompt before it in its session is
    taken to begin with it, as a chat's does, and a shorter one to be about something else.

    Raises:
        TraceError: the header is wrong or no row is usable; names file, line and column.
    """
    sessions: dict[str, _Session] = {}

    def parse(fields: Any) -> TraceRequest | None:
        row = _BurstRow.model_validate(fields)
        if row.output == 0:
            return None
        if row.prompt == 0:
            raise BadLineError("Request tokens: expected at least 1, got 0")
        prefix: tuple[int, ...] = ()
        if row.session:
            own = sessions.setdefault(row.session, _Session(len(sessions)))
            prefix = own.blocks(row.prompt)
        return TraceRequest(row.arrival_s, row.prompt, row.output, prefix=prefix)

    wanted = ("Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type")
    return read_rows(path, csv_rows(path, wanted), parse)


FORMATS: dict[str, Callable[[Path], Trace]] = {
    "azure": read_azure, "mooncake": read_mooncake, "burstgpt": read_burstgpt
}  # fmt: skip


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

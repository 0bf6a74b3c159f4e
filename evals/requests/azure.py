"""How is an Azure LLM inference trace (2023) read?

CSV with the header `TIMESTAMP,ContextTokens,GeneratedTokens`; timestamps carry
seven fractional digits (100 ns), one more than Python's datetime accepts.
Source: Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from evals.requests.trace import (
    BadLineError,
    Trace,
    csv_columns,
    csv_fields,
    numbered_lines,
    read_lines,
    shown,
    token_count,
)
from serving.contracts import TraceRequest

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?")


def read(path: Path) -> Trace:
    """Read an Azure trace file.

    Raises:
        TraceError: the header is wrong or no row is usable; names file, line and column.
    """
    lines = numbered_lines(path)
    columns, _ = csv_columns(path, lines, COLUMNS)

    def parse(line: str) -> TraceRequest:
        timestamp, context, generated = csv_fields(line, columns, COLUMNS)
        return TraceRequest(
            arrival_s=_seconds(timestamp),
            prompt_tokens=token_count("ContextTokens", context),
            output_tokens=token_count("GeneratedTokens", generated),
        )

    return read_lines(path, lines, parse)


def _seconds(text: str) -> float:
    match = TIMESTAMP.fullmatch(text)
    if match is None:
        raise BadLineError(f"TIMESTAMP: expected YYYY-MM-DD HH:MM:SS.fffffff, got {shown(text)}")
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    except ValueError as error:
        raise BadLineError(f"TIMESTAMP: {error}, got {shown(text)}") from error
    # A float of Unix seconds keeps about 200 ns; rounding in starting_at_zero hides the rest.
    return whole.timestamp() + float(f"0.{match[2] or 0}")

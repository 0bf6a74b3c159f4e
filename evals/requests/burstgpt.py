"""How is a BurstGPT trace read?

CSV with the header `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`;
release 2.0 puts `Session ID,Elapsed time` after the first, so columns go by name and others
are ignored. Seconds need not begin at 0. Zero response tokens record a request that failed:
such rows are left out and counted.
Source: HPMLL/BurstGPT.
"""

import math
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

COLUMNS = (
    "Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type",
)  # fmt: skip


def read(path: Path) -> Trace:
    """Read a BurstGPT trace file.

    Raises:
        TraceError: the header is wrong or no row is usable; names file, line and column.
    """
    lines = numbered_lines(path)
    columns = csv_columns(path, lines, COLUMNS)

    def parse(line: str) -> TraceRequest | None:
        timestamp, _, prompt, response, total, _ = csv_fields(line, columns, COLUMNS)
        arrival_s = _seconds(timestamp)
        output_tokens = token_count("Response tokens", response, least=0)
        prompt_tokens = token_count("Request tokens", prompt, least=min(1, output_tokens))
        token_count("Total tokens", total, least=0)
        if output_tokens == 0:
            return None
        return TraceRequest(arrival_s, prompt_tokens, output_tokens)

    return read_lines(path, lines, parse)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise BadLineError(f"Timestamp: expected seconds >= 0, got {shown(text)}")
    return seconds

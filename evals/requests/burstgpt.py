"""How is a BurstGPT trace read?

CSV with the header `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`;
release 2.0 puts `Session ID,Elapsed time` after the first, so columns go by name and others
are ignored. Seconds need not begin at 0. Zero response tokens record a request that failed:
such rows are left out and counted.

Rows of one session are turns of it. Nothing says what a prompt holds, so one that is longer than
the prompt before it in its session is taken to begin with it, as a chat's does, and a shorter one
to be about something else.
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
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

COLUMNS = (
    "Timestamp", "Model", "Request tokens", "Response tokens", "Total tokens", "Log Type",
)  # fmt: skip
SESSION = "Session ID"


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


def read(path: Path) -> Trace:
    """Read a BurstGPT trace file.

    Raises:
        TraceError: the header is wrong or no row is usable; names file, line and column.
    """
    lines = numbered_lines(path)
    columns, session = csv_columns(path, lines, COLUMNS, SESSION)
    sessions: dict[str, _Session] = {}

    def parse(line: str) -> TraceRequest | None:
        timestamp, _, prompt, response, total, _, *named = csv_fields(
            line, [*columns, *session], (*COLUMNS, SESSION)[: len(columns) + len(session)]
        )
        arrival_s = _seconds(timestamp)
        output_tokens = token_count("Response tokens", response, least=0)
        prompt_tokens = token_count("Request tokens", prompt, least=min(1, output_tokens))
        token_count("Total tokens", total, least=0)
        if output_tokens == 0:
            return None
        prefix: tuple[int, ...] = ()
        if named and named[0]:
            own = sessions.setdefault(named[0], _Session(len(sessions)))
            prefix = own.blocks(prompt_tokens)
        return TraceRequest(arrival_s, prompt_tokens, output_tokens, prefix=prefix)

    return read_lines(path, lines, parse)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise BadLineError(f"Timestamp: expected seconds >= 0, got {shown(text)}")
    return seconds

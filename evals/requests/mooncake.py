"""How is a Mooncake trace read?

JSON lines `{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}`;
each hash id names one 512-token block of the prompt, the last one what is left over, and
shared blocks have the same id. All four keys are needed; others are ignored.
Source: kvcache-ai/Mooncake, FAST25-release (conversation, toolagent and synthetic alike).
"""

import json
import math
from pathlib import Path

from evals.requests.trace import (
    BadLineError,
    Trace,
    numbered_lines,
    read_lines,
    shown,
    token_count,
)
from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS


def read(path: Path) -> Trace:
    """Read a Mooncake trace file.

    Raises:
        TraceError: no line is usable; names file, line and key.
    """
    return read_lines(path, numbered_lines(path), _parse)


def _parse(line: str) -> TraceRequest:
    try:
        row = json.loads(line.rstrip())
    except json.JSONDecodeError as error:  # its text counts lines too, and means this one
        raise BadLineError(f"line: not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"line: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadLineError(f"line: expected an object, got {shown(row)}")
    for key in ("timestamp", "input_length", "output_length", "hash_ids"):
        if key not in row:
            raise BadLineError(f"{key}: missing")
    prompt_tokens = token_count("input_length", row["input_length"])
    return TraceRequest(
        arrival_s=_milliseconds(row["timestamp"]) / 1000,
        prompt_tokens=prompt_tokens,
        output_tokens=token_count("output_length", row["output_length"]),
        prefix=_blocks(row["hash_ids"], prompt_tokens),
    )


def _milliseconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        milliseconds = float(min(value, 1e300))
        if math.isfinite(milliseconds) and milliseconds >= 0:
            return milliseconds
    raise BadLineError(f"timestamp: expected milliseconds >= 0, got {shown(value)}")


def _blocks(value: object, prompt_tokens: int) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise BadLineError(f"hash_ids: expected a list of whole numbers, got {shown(value)}")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, int) or item < 0:
            raise BadLineError(f"hash_ids: expected whole numbers >= 0, got {shown(item)}")
    most = math.ceil(prompt_tokens / PREFIX_BLOCK_TOKENS)
    if len(value) > most:
        raise BadLineError(
            f"hash_ids: {len(value)} blocks of {PREFIX_BLOCK_TOKENS} do not fit "
            f"input_length {prompt_tokens} (at most {most})"
        )
    return tuple(value)

"""What is a trace, and what does a reader do with a line it cannot use?

Every reader in this folder returns a `Trace`. A broken line is left out and named
(`FILE:LINE: key: what is wrong`); a file with nothing usable in it is an error.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from serving.contracts import TraceRequest

GZIP_MAGIC = b"\x1f\x8b"


class TraceError(ValueError):
    """A trace that cannot be used; names the file, the line and the key."""


class BadLineError(ValueError):
    """One unusable line; says which key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, the first at 0 s, and what was left out.

    Attributes:
        requests: the usable rows.
        malformed: one message per broken line, in the order of the file.
        failed: rows that record a request which got no answer; left out, not broken.
        out_of_order: rows that arrive before the one above them; used, sorted by arrival.
    """

    requests: tuple[TraceRequest, ...]
    malformed: tuple[str, ...] = ()
    failed: int = 0
    out_of_order: int = 0


ParseLine = Callable[[str], TraceRequest | None]


def read_lines(path: Path, lines: Iterator[tuple[int, str]], parse: ParseLine) -> Trace:
    """Parse numbered lines into a trace whose clock starts at the first arrival.

    `parse` returns a request, or None for a row that records a failed one.

    Raises:
        TraceError: no line is usable.
    """
    requests: list[TraceRequest] = []
    malformed: list[str] = []
    failed = 0
    for number, line in lines:
        if not line.strip():
            continue
        try:
            request = parse(line)
        except BadLineError as error:
            malformed.append(f"{path}:{number}: {error}")
            continue
        if request is None:
            failed += 1
        else:
            requests.append(request)
    if not requests:
        first = f"; first problem: {malformed[0]}" if malformed else ""
        raise TraceError(
            f"{path}: no usable request ({len(malformed)} malformed lines, {failed} failed){first}"
        )
    return Trace(
        starting_at_zero(requests),
        tuple(malformed),
        failed,
        sum(later.arrival_s < row.arrival_s for row, later in pairwise(requests)),
    )


def starting_at_zero(requests: list[TraceRequest]) -> tuple[TraceRequest, ...]:
    """Requests sorted by arrival (stable), shifted so that the first arrives at 0 s."""
    ordered = sorted(requests, key=lambda request: request.arrival_s)
    start_s = ordered[0].arrival_s
    return tuple(
        TraceRequest(
            arrival_s=round(request.arrival_s - start_s, 7),
            prompt_tokens=request.prompt_tokens,
            output_tokens=request.output_tokens,
            prefix=request.prefix,
        )
        for request in ordered
    )


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file, gzipped or not, with their numbers.

    Bytes that are not UTF-8 become U+FFFD.

    Raises:
        TraceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            unpack = gzip.open if file.read(2) == GZIP_MAGIC else open
        with unpack(path, "rt", encoding="utf-8-sig", errors="replace", newline=None) as text:
            yield from enumerate(text, start=1)
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzip file cut off
        why = getattr(error, "strerror", None) or error
        raise TraceError(f"{path}: cannot be read: {why}") from error


def csv_columns(
    path: Path, lines: Iterator[tuple[int, str]], wanted: tuple[str, ...], optional: str = ""
) -> tuple[list[int], list[int]]:
    """Positions of the wanted columns, from the header line, and of an optional one, if there.

    Raises:
        TraceError: the file is empty or its header lacks a column.
    """
    number, header = next((each for each in lines if each[1].strip()), (1, ""))
    try:
        names = [name.strip() for name in next(csv.reader([header.strip()]), [])]
    except csv.Error:
        names = []
    for column in wanted:
        if column not in names:
            raise TraceError(
                f"{path}:{number}: {column}: column missing; "
                f"expected the header {','.join(wanted)!r}, got {header.strip()[:80]!r}"
            )
    found = [names.index(column) for column in wanted]
    return found, [names.index(optional)] if optional in names else []


def csv_fields(line: str, columns: list[int], wanted: tuple[str, ...]) -> list[str]:
    """The wanted fields of one CSV row.

    Raises:
        BadLineError: the row is too short or is not CSV.
    """
    try:
        row = next(csv.reader([line]))
    except csv.Error as error:
        raise BadLineError(f"{wanted[0]}: not a CSV row: {error}") from error
    for name, position in zip(wanted, columns, strict=True):
        if position >= len(row):
            raise BadLineError(f"{name}: missing, the row has {len(row)} fields")
    return [row[position].strip() for position in columns]


def token_count(key: str, value: object, least: int = 1) -> int:
    """A whole number of tokens, from text or JSON.

    Raises:
        BadLineError: not a whole number, or less than `least`.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadLineError(f"{key}: expected a whole number of tokens, got {shown(value)}")
    if value < least:
        raise BadLineError(f"{key}: expected at least {least}, got {value}")
    return value


def shown(value: object) -> str:
    """A value as error messages show it: quoted, and short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

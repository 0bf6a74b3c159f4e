"""What is a trace, and what does a reader do with a line it cannot use?

A broken line is left out and named (`FILE:LINE: key: what is wrong`); a file with nothing usable
in it is an error. Used by `readers`, and by ServeGen's.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serving.contracts import TraceRequest

GZIP_MAGIC = b"\x1f\x8b"


class TraceError(ValueError):
    """A trace that cannot be used; names the file, the line and the key."""


class WorkloadError(ValueError):
    """A workload that cannot be run; says what to do."""


class BadLineError(ValueError):
    """One unusable line; says which key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival, the first at 0 s, and what was left out."""

    requests: tuple[TraceRequest, ...]  # the usable rows
    malformed: tuple[str, ...] = ()  # one message per broken line, in the order of the file
    failed: int = 0  # rows that record a request which got no answer; left out, not broken
    out_of_order: int = 0  # rows that arrive before the one above them; used, sorted by arrival


def read_rows(
    path: Path, rows: Iterable[tuple[int, Any]], parse: Callable[[Any], TraceRequest | None]
) -> Trace:
    """Parse numbered rows into a trace whose clock starts at the first arrival.

    `parse` returns a request, or None for a row that records a failed one; a row that it refuses
    (`BadLineError`, pydantic's `ValidationError`) is malformed.

    Raises:
        TraceError: no row is usable.
    """
    requests, malformed, failed = list[TraceRequest](), list[str](), 0
    for number, row in rows:
        try:
            request = parse(row)
        except BadLineError as error:
            malformed.append(f"{path}:{number}: {error}")
        except ValidationError as error:
            malformed.append(f"{path}:{number}: {_first_of(error)}")
        else:
            failed += request is None
            if request is not None:
                requests.append(request)
    if not requests:
        first = f"; first problem: {malformed[0]}" if malformed else ""
        raise TraceError(
            f"{path}: no usable request ({len(malformed)} malformed lines, {failed} failed){first}"
        )
    ordered = sorted(requests, key=lambda request: request.arrival_s)
    start_s = ordered[0].arrival_s
    return Trace(
        tuple(replace(one, arrival_s=round(one.arrival_s - start_s, 7)) for one in ordered),
        tuple(malformed), failed,
        sum(later.arrival_s < row.arrival_s for row, later in pairwise(requests)),
    )  # fmt: skip


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "missing":
        return f"{first['loc'][0]}: missing"
    what = first["msg"].removeprefix("Value error, ")
    return f"{first['loc'][0]}: {what}, got {shown(first['input'])}"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file, gzipped or not, with their numbers; blank ones are left out.

    Bytes that are not UTF-8 become U+FFFD.

    Raises:
        TraceError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            unpack = gzip.open if file.read(2) == GZIP_MAGIC else open
        with unpack(path, "rt", encoding="utf-8-sig", errors="replace", newline=None) as text:
            yield from ((i, line) for i, line in enumerate(text, start=1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:  # the last two: a gzip file cut off
        why = getattr(error, "strerror", None) or error
        raise TraceError(f"{path}: cannot be read: {why}") from error


def csv_rows(path: Path, wanted: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The fields of each row by column, with its line's number; the first line is the header.

    Raises:
        TraceError: the file cannot be read, is empty, or its header lacks a column.
    """
    lines = numbered_lines(path)
    number, header = next(lines, (1, ""))
    names = _cells(header)
    if missing := [column for column in wanted if column not in names]:
        raise TraceError(
            f"{path}:{number}: {missing[0]}: column missing; "
            f"expected the header {','.join(wanted)!r}, got {header.strip()[:80]!r}"
        )
    for number, line in lines:
        yield number, dict(zip(names, _cells(line), strict=False))


def _cells(line: str) -> list[str]:
    """The fields of a CSV line; none of what is no CSV."""
    try:
        return [cell.strip() for cell in next(csv.reader([line.strip()]), [])]
    except csv.Error:
        return []


def shown(value: object) -> str:
    """A value as error messages show it: quoted, and short."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

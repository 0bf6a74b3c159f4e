"""What did the server complain about? Errors and warnings in its log, each kind once.

Called by `run`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

MOST_SHOWN = 5
# "(EngineCore pid=7) ERROR 11-22 13:22:11 [core.py:12] text", and uvicorn's "ERROR:    text"
_LINE = re.compile(
    r"(?:\([^)]*\) )?(?P<level>ERROR|CRITICAL|WARNING)"
    r"(?P<stamp>(?: \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\])?):?\s+(?P<text>.*)"
)
_TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True, slots=True)
class Complaints:
    """Of one level: how many, and the first of each kind, with its count before it."""

    count: int
    first: tuple[str, ...]


def read_complaints(log: Path, offset: int) -> tuple[Complaints, Complaints]:
    """Errors and warnings in `log` from byte `offset` on.

    Lines with one stamp are one complaint: vLLM repeats it on each line of a traceback.
    A traceback without a level is an error as well.
    """
    errors: list[str] = []
    warnings: list[str] = []
    with log.open("rb") as file:
        file.seek(offset)
        lines = file.read().decode(errors="replace").splitlines()
    last = ""
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            last = ""
            if line.startswith(_TRACEBACK):
                errors.append(line)
            continue
        stamp = found["level"] + found["stamp"]
        if not found["stamp"] or stamp != last:
            (warnings if found["level"] == "WARNING" else errors).append(found["text"])
        last = stamp
    return _summed_up(errors), _summed_up(warnings)


def _summed_up(texts: list[str]) -> Complaints:
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(re.sub(r"\d+(\.\d+)?", "N", text), []).append(text[:300])
    first = [f"{len(same)} x {same[0]}" if len(same) > 1 else same[0] for same in kinds.values()]
    return Complaints(len(texts), tuple(first[:MOST_SHOWN]))

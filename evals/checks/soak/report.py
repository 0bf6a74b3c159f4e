"""What came of a soak? Tables, one JSON object, a verdict, and what the server complained about."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.checks.soak.books import SoakBooks
from evals.report.sheet import Sheet

_ANSWERS = ("accepted", "refused", "malformed", "denied", "broken")
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


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident MiB of the engine core processes."""

    start: float
    warm: float
    most: float
    end: float


@dataclass(frozen=True, slots=True)
class SoakReport:
    """Everything that a soak found."""

    seconds: float
    seed: int
    books: SoakBooks
    memory_mib: Memory
    errors: Complaints
    warnings: Complaints
    policy_faults: int  # exceptions of ours that the hook caught
    last_fault: str
    answers: Mapping[str, Mapping[str, int]]  # of the control routes, by kind of call
    broken: Sequence[str]  # guarantees of the control routes that did not hold
    longest_without_token_s: float  # while at least one client was waiting
    most_waiting: int
    preemptions: int

    @property
    def problems(self) -> list[str]:
        """Why the soak failed; empty when it held."""
        found = [*self.books.mismatches, *self.broken]
        found += [f"in the server's log: {line}" for line in self.errors.first]
        if self.policy_faults:
            found.append(f"{self.policy_faults} policy faults, the last: {self.last_fault}")
        return found

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready object."""
        return {"ok": not self.problems, "problems": self.problems, **asdict(self)}

    def sheets(self) -> list[Sheet]:
        """Figures, and calls of the control routes."""
        books, memory, ends = self.books, self.memory_mib, self.books.ends
        rows = [
            ("sent by clients", str(books.sent)),
            (", ".join(ends), ", ".join(map(str, ends.values()))),
            ("engine: received", str(books.received)),
            ("engine: finished + aborted", f"{books.finished} + {books.aborted}"),
            ("books", "NOT BALANCED" if books.mismatches else "balanced"),
            ("engine memory, MiB: start, warm, most, end",
             f"{memory.start:.0f}, {memory.warm:.0f}, {memory.most:.0f}, {memory.end:.0f}"),
            ("growth after warm-up", f"{memory.end - memory.warm:+.1f} MiB"),
            ("server's log: errors, warnings", f"{self.errors.count}, {self.warnings.count}"),
            ("policy faults", str(self.policy_faults)),
            ("longest without any token", f"{self.longest_without_token_s:.1f} s"),
            ("longest queue, preemptions", f"{self.most_waiting}, {self.preemptions}"),
        ]  # fmt: skip
        calls = [
            [name, *(str(counts.get(answer, 0)) for answer in _ANSWERS)]
            for name, counts in self.answers.items()
        ]
        title = f"Soak of {self.seconds / 60:.1f} minutes, seed {self.seed}"
        return [
            Sheet(title, ("", ""), rows, books.text()),
            Sheet("Calls of the control routes", ("call", *_ANSWERS), calls),
        ]

    def lines(self) -> list[str]:
        """The verdict, and what the server warned of."""
        lines = [f"PROBLEM: {problem}" for problem in self.problems] or ["no problem found"]
        return lines + [f"warning in the log: {line}" for line in self.warnings.first]

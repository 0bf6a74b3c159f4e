"""What came of a soak? A table for people, one JSON object for machines, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType

from evals.checks.soak.books import SoakBooks
from evals.checks.soak.server_log import Complaints
from evals.report.sheet import Sheet, terminal

_MIB = 1024 * 1024
_ANSWERS = ("accepted", "refused", "malformed", "denied", "broken")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes of the engine core processes."""

    start: int
    warm: int
    most: int
    end: int


@dataclass(frozen=True, slots=True)
class SoakReport:
    """Everything that a soak found.

    Attributes:
        answers: of the control routes, by kind of call.
        broken: guarantees of the control routes that did not hold.
        policy_faults: exceptions of ours that the hook caught.
        longest_without_token_s: while at least one client was waiting.
    """

    seconds: float
    seed: int
    books: SoakBooks
    memory: Memory
    errors: Complaints
    warnings: Complaints
    policy_faults: int
    last_fault: str
    answers: Mapping[str, Mapping[str, int]]
    broken: Sequence[str]
    longest_without_token_s: float
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
        books, memory = self.books, self.memory
        sorted_ends = dict(sorted(books.ends.items()))
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
            "clients": {"sent": books.sent, "asked": books.asked, **sorted_ends},
            "engine": {
                "received": books.received,
                "finished": books.finished,
                "aborted": books.aborted,
                "unseen": books.unseen,
                "preemptions": self.preemptions,
                "policy_faults": self.policy_faults,
                "most_waiting": self.most_waiting,
            },
            "balanced": books.balanced,
            "memory_mib": {
                "start": round(memory.start / _MIB, 1),
                "warm": round(memory.warm / _MIB, 1),
                "most": round(memory.most / _MIB, 1),
                "end": round(memory.end / _MIB, 1),
            },
            "log": {
                "errors": self.errors.count,
                "first_errors": list(self.errors.first),
                "warnings": self.warnings.count,
                "first_warnings": list(self.warnings.first),
            },
            "decisions": {name: dict(counts) for name, counts in self.answers.items()},
            "longest_without_token_s": round(self.longest_without_token_s, 2),
        }


def terminal_view(report: SoakReport) -> RenderableType:
    """Two tables and the verdict."""
    books, memory, ends = report.books, report.memory, report.books.ends
    rows = [
        ("sent by clients", str(books.sent)),
        ("finished, left, refused, failed",
         ", ".join(str(ends[end]) for end in ("finished", "left", "refused", "failed"))),
        ("engine: received", str(books.received)),
        ("engine: finished + aborted", f"{books.finished} + {books.aborted}"),
        ("books", "balanced" if books.balanced else "NOT BALANCED"),
        ("engine memory, MiB: start, warm, most, end",
         ", ".join(f"{size / _MIB:.0f}"
                   for size in (memory.start, memory.warm, memory.most, memory.end))),
        ("growth after warm-up", f"{(memory.end - memory.warm) / _MIB:+.1f} MiB"),
        ("server's log: errors, warnings", f"{report.errors.count}, {report.warnings.count}"),
        ("policy faults", str(report.policy_faults)),
        ("longest without any token", f"{report.longest_without_token_s:.1f} s"),
        ("longest queue, preemptions", f"{report.most_waiting}, {report.preemptions}"),
    ]  # fmt: skip
    title = f"Soak of {report.seconds / 60:.1f} minutes, seed {report.seed}"
    figures = Sheet(title, ("", ""), rows, books.text())
    calls = Sheet(
        "Calls of the control routes",
        ("call", *_ANSWERS),
        [
            [name, *(str(counts.get(answer, 0)) for answer in _ANSWERS)]
            for name, counts in report.answers.items()
        ],
    )
    lines = [f"PROBLEM: {problem}" for problem in report.problems] or ["no problem found"]
    lines += [f"warning in the log: {line}" for line in report.warnings.first]
    return Group(terminal(figures), terminal(calls), *lines)

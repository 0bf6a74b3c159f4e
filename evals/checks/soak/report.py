"""What came of a soak? Tables for people, one JSON object for machines, and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.checks.soak.books import SoakBooks
from evals.checks.soak.server_log import Complaints
from evals.report.sheet import Sheet

_ANSWERS = ("accepted", "refused", "malformed", "denied", "broken")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident MiB of the engine core processes."""

    start: float
    warm: float
    most: float
    end: float


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
    memory_mib: Memory
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

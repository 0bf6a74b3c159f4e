"""What was already run, so that an interrupted suite goes on where it stopped?

A folder (`--out`) holds `cases.jsonl`, one line per finished case with the hash of all that
decides it (requests, arm, profile, settings, controller, versions, and our own code), and
`cases/KEY.jsonl.gz` with the outcomes of those cases that the report draws. Used by the
simulated runner.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from evals.metrics import CaseRun, Result
from evals.recording import AppliedDecision
from serving.contracts import Outcome, decode, encode

REPO = Path(__file__).resolve().parents[1]
# What a simulated case goes through. What is left out shows results, or runs elsewhere; a new
# module is counted until it is named here, so that no stale result is taken for a fresh one.
ENGINE_CODE = ("serving", "evals")
CONTROLLER_CODE = ("tools", "hmas_agents", "graphs", "prompts")
NOT_RUN = (
    "bench", "commands", "demo", "fidelity", "profiles", "report", "results", "soak",
    "suites", "cli.py", "commands.py", "compare.py", "compare_command.py",
    "eval_run.py", "live_arm.py", "live_capacity.py", "live_runner.py", "live_suite.py",
    "load_generator.py", "plain_server.py", "progress.py", "report_command.py", "run_files.py",
    "run_result.py", "statistics.py", "summary_table.py",
)  # fmt: skip
SOURCES = (".py", ".md", ".toml")

_DECISIONS = TypeAdapter(list[AppliedDecision])


@dataclass(frozen=True, slots=True)
class FinishedCase:
    """The result of a case and, as far as it is kept, the run behind it."""

    result: Result
    run: CaseRun


class CaseStore:
    """Finished cases in a folder, by key. One process writes it at a time."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; a line that was cut off when a run was killed is left out."""
        self._lines = folder / "cases.jsonl"
        self._details = folder / "cases"
        self._details.mkdir(parents=True, exist_ok=True)
        self._stored: dict[str, dict[str, Any]] = {}
        for line in self._whole_lines():
            self._stored[line.pop("key")] = line

    def figures(self, key: str) -> dict[str, float | str] | None:
        """Figures computed before that all arms share."""
        figures: dict[str, float | str] | None = self._stored.get(key, {}).get("figures")
        return figures

    def add_figures(self, key: str, figures: dict[str, float | str]) -> None:
        """Keep such figures."""
        self._append(key, {"figures": figures})

    def find(self, key: str) -> FinishedCase | None:
        """A case that was run before, with its outcomes if they were kept."""
        stored = self._stored.get(key)
        if stored is None or "result" not in stored:
            return None
        result = stored["result"]
        run = CaseRun(
            result["scenario"], result["load"], result["arm"],
            outcomes=self._outcomes(key),
            decisions=_DECISIONS.validate_python(stored["decisions"]),
            preemptions=result["preemptions"],
            recomputed_tokens=result["recomputed_tokens"], chosen=result["chosen"],
        )  # fmt: skip
        return FinishedCase(result, run)

    def add(self, key: str, case: FinishedCase) -> None:
        """Keep a finished case: its outcomes first, so that a line promises nothing missing."""
        if case.run.outcomes:
            partial = self._details / f"{key}.part"
            with gzip.open(partial, "wt", encoding="utf-8") as file:
                file.writelines(json.dumps(encode(each)) + "\n" for each in case.run.outcomes)
            partial.replace(self._outcome_file(key))
        decisions = _DECISIONS.dump_python(list(case.run.decisions), mode="json")
        self._append(key, {"result": case.result, "decisions": decisions})

    def _append(self, key: str, entry: dict[str, Any]) -> None:
        self._stored[key] = entry
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key} | entry, allow_nan=False) + "\n")

    def _outcomes(self, key: str) -> Sequence[Outcome]:
        path = self._outcome_file(key)
        if not path.is_file():
            return ()
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [decode(Outcome, json.loads(line)) for line in file]

    def _outcome_file(self, key: str) -> Path:
        return self._details / f"{key}.jsonl.gz"

    def _whole_lines(self) -> Iterable[dict[str, Any]]:
        if not self._lines.is_file():
            return
        text = self._lines.read_text(encoding="utf-8")
        if text and not text.endswith("\n"):
            text = text[: text.rfind("\n") + 1]
            self._lines.write_text(text, encoding="utf-8")
        yield from (json.loads(line) for line in text.splitlines())


def key_of(*parts: object) -> str:
    """A short hash of everything that decides a result, by its `repr`."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode()).hexdigest()[:24]


def code_digest(controlled: bool) -> str:
    """A hash of the code, and with a controller the prompts, that a simulated case goes through."""
    digest = hashlib.sha256()
    for top in ENGINE_CODE + CONTROLLER_CODE * controlled:
        for path in sorted((REPO / top).rglob("*")):
            inside = path.relative_to(REPO / top).parts
            if path.suffix in SOURCES and inside[0] not in NOT_RUN and path.name != "README.md":
                digest.update(str(path.relative_to(REPO)).encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()

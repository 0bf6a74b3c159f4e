"""What did `hmas eval tune` find on the development half? Written by it, read by tuned arms.

One file per suite, `evals/tuned/SUITE.toml`, with one table per machine.
"""

import json
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evals.suite.arms import parse_arm
from evals.suite.toml_file import SuiteError, read_toml

TUNED = Path(__file__).parents[1] / "tuned"
DEVELOPMENT = "development"

# A leaf is (fixed arm,); another node (state, threshold, node if not above, node if above).
Node = tuple[str] | tuple[str, float, int, int]


class Tuned(BaseModel):
    """A part of the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StockSetting(Tuned):
    """vLLM's options; `max_num_queued_tokens` 0 lets all in."""

    token_budget: int = Field(ge=1)
    max_num_seqs: int = Field(ge=1)
    max_num_queued_tokens: int = Field(0, ge=0)


class TunedMachine(Tuned):
    """What pays most on one machine, over all scenarios, loads and seeds that were tried.

    Attributes:
        stock: joint setting of stock vLLM.
        limits: for each of its options why the search ended there.
        best_fixed: a fixed arm.
        threshold, tree: see `Node`; node 0 is the root.
        met: share of requests that met their SLOs, by arm.
    """

    stock: StockSetting
    limits: dict[str, str] = {}
    best_fixed: str
    threshold: tuple[Node, ...] = Field(min_length=1)
    tree: tuple[Node, ...] = Field(min_length=1)
    met: dict[str, float] = {}

    @model_validator(mode="after")
    def _usable(self) -> Self:
        leaves = [node[0] for node in (*self.threshold, *self.tree) if len(node) == 1]
        for name in (self.best_fixed, *leaves):
            if not parse_arm(name).policy:
                raise ValueError(f"{name!r} is no fixed arm")
        return self


class TunedFile(Tuned):
    """The whole file; all but `machines` says where it comes from."""

    suite: str
    half: str
    seeds: tuple[int, ...]
    commit: str
    date: str
    machines: dict[str, TunedMachine]


def tuned_for(suite: str, machine: str, folder: Path = TUNED) -> TunedMachine:
    """What was tuned for a suite's arms on a machine.

    Raises:
        SuiteError: there is nothing, or it was not tuned on this suite's development half; names
            the command.
    """
    path = folder / f"{suite}.toml"
    command = f"`hmas eval tune evals/suites/{suite}.toml`"
    if not path.is_file():
        raise SuiteError(f"{path}: no such file, and an arm reads it: run {command}")
    found = read_toml(path, TunedFile)
    if found.suite != suite:
        raise SuiteError(
            f"{path}: suite: tuned on {found.suite!r}, not on {suite!r}: run {command}"
        )
    if found.half != DEVELOPMENT:
        raise SuiteError(
            f"{path}: half: tuned on the half {found.half!r}, not on {DEVELOPMENT!r}: run {command}"
        )
    if machine not in found.machines:
        raise SuiteError(
            f"{path}: machines: nothing for {machine!r}, only {', '.join(found.machines)}: "
            f"run {command}"
        )
    return found.machines[machine]


def write_tuned(found: TunedFile, folder: Path = TUNED) -> Path:
    """Write the file; machines tuned earlier on the same suite stay."""
    path = folder / f"{found.suite}.toml"
    kept = read_toml(path, TunedFile).machines if path.is_file() else {}
    machines = {**kept, **found.machines}
    lines = [f"# Written by `hmas eval tune evals/suites/{found.suite}.toml`: do not edit."]
    lines += _table(found.model_dump(mode="json", exclude={"machines"}))
    for name, machine in sorted(machines.items()):
        values = machine.model_dump(mode="json")
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        lines += ["", f"[machines.{json.dumps(name)}]"]
        lines += _table({key: value for key, value in values.items() if key not in tables})
        for key, table in tables.items():
            lines += ["", f"[machines.{json.dumps(name)}.{key}]", *_table(table)]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _table(values: dict[str, object]) -> list[str]:
    # Strings, numbers and lists of them are the same in JSON as in TOML.
    return [f"{json.dumps(key)} = {json.dumps(value)}" for key, value in values.items()]

"""What is a case of the policy agent, and how are cases kept in a file?

A situation with the attainment of each candidate policy (the labels). JSON lines, gzipped
where the name ends in `.gz`. Made by `hmas_agents.cases` and `hmas eval agent build`, scored
by `hmas eval agent`.
"""

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hmas_agents.situation import Situation, SituationError, decode_situation, encode_situation
from serving.policies import POLICIES, complete_params, format_policy

Split = Literal["development", "held_out"]
Labels = dict[str, tuple[float, ...]]
Candidate = tuple[str, dict[str, float]]

DIGITS = 5  # of seconds and shares in a file: 10 us


class CaseError(ValueError):
    """A case file that cannot be used: `FILE:LINE: KEY: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which futures the labels were drawn from: `draws` of them, from `seed` on."""

    draws: int
    seed: int
    horizon_s: float


@dataclass(frozen=True, slots=True)
class Case:
    """One situation to choose a policy in.

    Attributes:
        id: unique in its file.
        scenario: where it comes from; the whole scenario is in one split.
        allowed: policies that may be chosen.
        labels: attainment (0..1) per future of each candidate, by `candidate_key`; the
            same futures for all. Empty: not labelled yet.
        plan: of the labels; None without labels.
        twin: as the labels, on other futures: what a twin would go by.
        provenance: what built it (`kind` is `simulated` or `live`).
    """

    id: str
    scenario: str
    split: Split
    situation: Situation
    allowed: tuple[str, ...]
    labels: Labels = field(default_factory=dict)
    plan: Plan | None = None
    twin: Labels = field(default_factory=dict)
    provenance: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def incumbent(self) -> Candidate:
        """Policy and parameters in force."""
        return self.situation.snapshot.policy, dict(self.situation.snapshot.params)


class _Row(BaseModel):
    """A line of a case file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str = Field(min_length=1)
    scenario: str
    split: Split
    allowed: tuple[str, ...] = Field(min_length=1)
    labels: dict[str, tuple[float, ...]] = {}
    plan: Plan | None = None
    twin: dict[str, tuple[float, ...]] = {}
    provenance: dict[str, str | int | float] = {}
    situation: dict[str, Any]


def candidate_key(policy: str, params: dict[str, float] | None = None) -> str:
    """A candidate by name, as `parse_policy` reads it: `slide`, or `slide:kappa=40`.

    Raises:
        ValueError: no such policy or parameter, or a value outside its bounds.
    """
    return format_policy(policy, complete_params(policy, params or {}))


def is_candidate(policy: str, params: dict[str, float]) -> bool:
    """Whether there is such a policy, with such parameters inside their bounds."""
    try:
        candidate_key(policy, params)
    except ValueError:
        return False
    return True


def candidates_of(allowed: Iterable[str]) -> tuple[Candidate, ...]:
    """Each policy with its defaults, and with every value that is worth choosing between."""
    found: dict[str, Candidate] = {}
    for name in allowed:
        own = [{key: v} for key, vs in POLICIES[name].param_choices.items() for v in vs]
        for params in ({}, *own):
            found.setdefault(candidate_key(name, params), (name, params))
    return tuple(found.values())


def read_cases(path: Path) -> list[Case]:
    """Every case of a file.

    Raises:
        CaseError: names file, line and key of what is wrong.
    """
    cases: dict[str, Case] = {}
    splits: dict[str, Split] = {}
    for number, line in _lines(path):
        place = f"{path}:{number}"
        try:
            row = _Row.model_validate_json(line)
            fields = {name: getattr(row, name) for name in _Row.model_fields}
            case = Case(**{**fields, "situation": decode_situation(row.situation)})
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "case"
            shown = str(first["input"])[:80]
            raise CaseError(f"{place}: {key}: {first['msg']} (got {shown!r})") from error
        except SituationError as error:
            raise CaseError(f"{place}: situation.{error}") from error
        _check(case, place)
        if case.id in cases:
            raise CaseError(f"{place}: id: {case.id!r} is in the file twice")
        if splits.setdefault(case.scenario, case.split) != case.split:
            raise CaseError(
                f"{place}: split: scenario {case.scenario!r} is in both splits; cases of one "
                "scenario resemble each other, so they must be on one side"
            )
        cases[case.id] = case
    if not cases:
        raise CaseError(f"{path}:1: case: the file holds none; `hmas eval agent build` makes some")
    return list(cases.values())


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Write a case file, whole or not at all; how many cases it holds."""
    count, partial = 0, path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as raw:
        # mtime and name in the header would make two equal files differ.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else None
        for case in cases:
            fields = {name: getattr(case, name) for name in _Row.model_fields}
            row = _Row(**{**fields, "situation": _rounded(encode_situation(case.situation))})
            (zipped or raw).write(row.model_dump_json(exclude_defaults=True).encode() + b"\n")
            count += 1
        if zipped is not None:
            zipped.close()
    partial.replace(path)
    return count


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as raw:
            unpack = gzip.open if raw.read(2) == b"\x1f\x8b" else open
        with unpack(path, "rt", encoding="utf-8") as text:
            yield from ((n, line) for n, line in enumerate(text, start=1) if line.strip())
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CaseError(f"{path}:1: file: cannot be read: {reason}") from error


def _check(case: Case, place: str) -> None:
    """What one line must hold beyond its types."""
    if unknown := [name for name in case.allowed if name not in POLICIES]:
        raise CaseError(f"{place}: allowed: there is no policy {unknown[0]!r}")
    if bool(case.labels) != (case.plan is not None):
        raise CaseError(f"{place}: plan: goes with labels, and labels with a plan")
    for key, draws in case.labels.items():
        if case.plan is not None and len(draws) != case.plan.draws:
            raise CaseError(
                f"{place}: labels.{key}: {len(draws)} futures, the plan has {case.plan.draws}"
            )
    for name, labels in (("labels", case.labels), ("twin", case.twin)):
        for key, draws in labels.items():
            if not draws or not all(0 <= share <= 1 for share in draws):
                raise CaseError(f"{place}: {name}.{key}: must be shares of 0..1, got {draws}")


def _rounded(value: Any) -> Any:
    """Floats to 10 us and five digits of a share, except small ones (costs), which stay."""
    if isinstance(value, float):
        return round(value, DIGITS) if abs(value) > 1e-2 else value
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def labelled(case: Case, labels: Labels, plan: Plan) -> Case:
    """The case with further labels.

    Raises:
        ValueError: it has labels of another plan, which these cannot stand beside.
    """
    if case.plan not in {None, plan}:
        raise ValueError(f"{case.id}: labelled by {case.plan}, these are by {plan}")
    return replace(case, labels=case.labels | labels, plan=plan)

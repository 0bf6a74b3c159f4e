"""Did a change make anything worse? Two results files, case by case, over their seeds.

Cases are paired by scenario, load, arm and seed, so that a difference is one of the same
arrivals. Called by `hmas eval compare`.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import BaseModel, Field, ValidationError

from evals.result.statistics import Interval, holm, paired_difference, paired_p, paired_ratio

CASE = ["scenario", "load", "arm"]
KEY = [*CASE, "seed"]
# Where one of these differs, two results are not of the same arrivals on the same machine.
SAME = ("trace", "engine", "requests", "capacity_rps")
SURE = 0.05  # a loss with a larger p may be chance


class Row(BaseModel):
    """Of a result, what a comparison needs; whatever else it says is left alone."""

    scenario: str
    load: float
    arm: str
    seed: int | None = None
    attainment: float = Field(ge=0, le=1)
    goodput_rps: float = Field(ge=0)
    requests: int = 0
    trace: str = ""
    engine: str = ""
    capacity_rps: float = 0.0


class Config(BaseModel):
    """Of the suite as it was run, what a comparison needs."""

    half: str = "any"


class Document(BaseModel):
    """What `hmas eval run` wrote; before results had a seed, the file had the only one."""

    seed: int
    results: list[Row]
    config: Config = Config()


class CompareError(ValueError):
    """Two results that cannot be compared; names the file and what to do."""


@dataclass(frozen=True, slots=True)
class CaseComparison:
    """One scenario, load and arm: B against A.

    `attainment` is B - A and `p` of the paired t test of it, adjusted for all cases (Holm; None
    with one seed); `goodput` is B / A, None where A has none.
    """

    scenario: str
    load: float
    arm: str
    seeds: tuple[int, ...]
    attainment_a: float
    attainment_b: float
    attainment: Interval
    p: float | None
    goodput: Interval | None
    regression: bool


def compare_files(
    a: Path, b: Path, *, tolerance: float, arm: str | None = None
) -> tuple[list[CaseComparison], list[str]]:
    """The cases that two results.json, or their folders, have in common, and what to know of them.

    `a` is what was, `b` what is. `tolerance` is attainment that may be lost (0.01 is a point); no
    `arm`: every arm that both have.

    Raises:
        CompareError: a file that is not of `hmas eval run`, results of different halves of the
            traces, or no case in common.
    """
    (half_a, old), (half_b, new) = _read(a), _read(b)
    if half_a != half_b:
        raise CompareError(
            f"{a} has results of the half {half_a!r}, {b} of {half_b!r}: other requests, so what "
            "differs says nothing. Run both with the same `half` in the suite"
        )
    if arm is not None:
        old, new = old[old["arm"] == arm], new[new["arm"] == arm]
    joined = old.merge(new, "outer", on=KEY, suffixes=("_a", "_b"), indicator="of", sort=False)
    both = joined[joined["of"] == "both"]
    if both.empty:
        which = "" if arm is None else f" of the arm {arm!r}"
        raise CompareError(
            f"{a} and {b} have no case{which} in common (scenario, load, arm, seed): "
            "compare two runs of the same suite"
        )
    groups = [group for _, group in both.groupby(CASE, sort=False)]
    p_values = [paired_p(group["attainment_a"], group["attainment_b"]) for group in groups]
    cases = [
        _compare(group, p, tolerance) for group, p in zip(groups, holm(p_values), strict=True)
    ]
    return cases, [*_alone(joined), *_different(both)]


def _compare(group: pd.DataFrame, p: float | None, tolerance: float) -> CaseComparison:
    first = group.iloc[0]
    met_a, met_b = group["attainment_a"], group["attainment_b"]
    difference = paired_difference(met_a, met_b)
    return CaseComparison(
        str(first["scenario"]), float(first["load"]), str(first["arm"]),
        tuple(map(int, group["seed"])), float(met_a.mean()), float(met_b.mean()),
        difference, p, paired_ratio(group["goodput_rps_a"], group["goodput_rps_b"]),
        regression=difference.mean < -tolerance and (p is None or p < SURE),
    )  # fmt: skip


def _alone(joined: pd.DataFrame) -> list[str]:
    return [
        f"only in {name}: {len(alone)} cases, the first {_key(alone)}"
        for name, side in (("A", "left_only"), ("B", "right_only"))
        if len(alone := joined[joined["of"] == side])
    ]


def _different(both: pd.DataFrame) -> list[str]:
    return [
        f"{what} differs in {len(odd)} cases, the first {_key(odd)}: "
        f"{odd.iloc[0][f'{what}_a']} against {odd.iloc[0][f'{what}_b']}"
        for what in SAME
        if len(odd := both[both[f"{what}_a"] != both[f"{what}_b"]])
    ]


def _key(rows: pd.DataFrame) -> str:
    return ", ".join(f"{key} {rows.iloc[0][key]}" for key in KEY)


def _read(path: Path) -> tuple[str, pd.DataFrame]:
    """The half of the traces that a file is of, and a row per result."""
    file = path / "results.json" if path.is_dir() else path
    try:
        document = Document.model_validate_json(file.read_bytes())
    except OSError as error:
        raise CompareError(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise CompareError(
            f"{file}: {key}: {first['msg']}: expected what `hmas eval run --json` or --out wrote"
        ) from error
    rows = pd.DataFrame([dict(row) for row in document.results], columns=list(Row.model_fields))
    return document.config.half, rows.fillna({"seed": document.seed})

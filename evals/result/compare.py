"""Did a change make anything worse? Two results files, case by case, over their seeds.

Cases are paired by scenario, load, arm and seed, so that a difference is one of the same
arrivals. Called by `hmas eval compare`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from evals.result.statistics import Interval, paired_difference, paired_ratio

Key = tuple[str, float, str, int]
# Where one of these differs, two results are not of the same arrivals on the same machine.
SAME = ("trace", "engine", "requests", "capacity_rps")


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


class Document(BaseModel):
    """What `hmas eval run` wrote; before results had a seed, the file had the only one."""

    seed: int
    results: list[Row]


class CompareError(ValueError):
    """Two results that cannot be compared; names the file and what to do."""


@dataclass(frozen=True, slots=True)
class CaseComparison:
    """One scenario, load and arm: B against A.

    `attainment` is B - A, `goodput` B / A (None where A has none in some seed).
    """

    scenario: str
    load: float
    arm: str
    seeds: tuple[int, ...]
    attainment_a: float
    attainment_b: float
    attainment: Interval
    goodput: Interval | None
    regression: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All cases that both files have, and what the reader must know about them."""

    cases: tuple[CaseComparison, ...]
    warnings: tuple[str, ...]

    @property
    def regressions(self) -> int:
        """How many cases got worse."""
        return sum(case.regression for case in self.cases)


def compare_files(a: Path, b: Path, *, tolerance: float, arm: str | None = None) -> Comparison:
    """Compare two results.json, or the folders that hold them.

    Args:
        a: what was.
        b: what is.
        tolerance: attainment that may be lost; 0.01 is a point of goodput.
        arm: this one only; None: every arm that both have.

    Raises:
        CompareError: a file that is not of `hmas eval run`, or no case in common.
    """
    old, new = _by_key(a), _by_key(b)
    if arm is not None:
        old, new = ({k: r for k, r in each.items() if k[2] == arm} for each in (old, new))
    common = [key for key in old if key in new]
    if not common:
        which = "" if arm is None else f" of the arm {arm!r}"
        raise CompareError(
            f"{a} and {b} have no case{which} in common (scenario, load, arm, seed): "
            "compare two runs of the same suite"
        )
    groups: dict[tuple[str, float, str], list[int]] = {}
    for scenario, load, name, seed in common:
        groups.setdefault((scenario, load, name), []).append(seed)
    cases = [_compare(case, seeds, old, new, tolerance) for case, seeds in groups.items()]
    return Comparison(tuple(cases), tuple(_warnings(old, new, common)))


def _compare(
    case: tuple[str, float, str],
    seeds: Sequence[int],
    old: dict[Key, Row],
    new: dict[Key, Row],
    tolerance: float,
) -> CaseComparison:
    before = [old[*case, seed] for seed in seeds]
    after = [new[*case, seed] for seed in seeds]
    met_a, met_b = ([each.attainment for each in side] for side in (before, after))
    difference = paired_difference(met_a, met_b)
    goodput = paired_ratio(
        [each.goodput_rps for each in before], [each.goodput_rps for each in after]
    )
    lost = difference.mean < -tolerance and difference.excludes(0.0)
    return CaseComparison(
        *case, tuple(seeds), sum(met_a) / len(met_a), sum(met_b) / len(met_b),
        difference, goodput, lost,
    )  # fmt: skip


def _warnings(old: dict[Key, Row], new: dict[Key, Row], common: Sequence[Key]) -> list[str]:
    warnings = []
    for name, mine, other in (("A", old, new), ("B", new, old)):
        if alone := [key for key in mine if key not in other]:
            warnings.append(f"only in {name}: {len(alone)} cases, the first {alone[0]}")
    for what in SAME:
        pairs = [(key, getattr(old[key], what), getattr(new[key], what)) for key in common]
        odd = [f"{key}: {was} against {now}" for key, was, now in pairs if was != now]
        if odd:
            warnings.append(f"{what} differs in {len(odd)} cases, the first {odd[0]}")
    return warnings


def _by_key(path: Path) -> dict[Key, Row]:
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
    return {
        (row.scenario, row.load, row.arm, document.seed if row.seed is None else row.seed): row
        for row in document.results
    }

"""Which arm is best over a whole suite, every scenario and load counting the same?

That is what a single fixed choice has to live with. Called by `table` and `page`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from evals.report.sheet import Sheet
from evals.result.metrics import Result
from evals.result.statistics import paired_difference

BASE = "hmas"
_NOTE = (
    "Attainment: mean over scenarios and loads, then over seeds. {base} less arm: in points, in "
    "pairs by seed{interval}. Least: the smallest ratio of {base}'s attainment to the arm's in any "
    "one scenario and load, means over seeds."
)
Case = tuple[str, float]


def suite_sheets(results: Sequence[Result]) -> list[Sheet]:
    """One sheet, best first; none with a single case, or without the arm `hmas`."""
    by_arm: dict[str, dict[int, dict[Case, Result]]] = defaultdict(lambda: defaultdict(dict))
    for each in results:
        by_arm[each["arm"]][int(each.get("seed", 0))][each["scenario"], each["load"]] = each
    base = by_arm.get(BASE)
    cases = {case for seed in (base or {}).values() for case in seed}
    if base is None or len(cases) < 2:
        return []
    whole = {arm: seeds for arm, seeds in by_arm.items() if _complete(seeds, base)}
    ranked = sorted(whole, key=lambda arm: -fmean(_by_seed(whole[arm])))
    interval = f", with a 95% interval over {len(base)} seeds" if len(base) > 1 else ""
    return [
        Sheet(
            f"Over the whole suite: {len(cases)} cases a seed",
            ("arm", "attainment", f"{BASE} less arm", "least", "switches"),
            [_row(arm, whole[arm], base) for arm in ranked],
            _NOTE.format(base=BASE, interval=interval),
        )
    ]


Seeds = Mapping[int, Mapping[Case, Result]]


def _row(arm: str, seeds: Seeds, base: Seeds) -> list[str]:
    less = paired_difference(
        [100 * each for each in _by_seed(seeds)], [100 * each for each in _by_seed(base)]
    )
    switches = fmean(float(each["switches"]) for seed in seeds.values() for each in seed.values())
    interval = f" ({less.low:+.1f} to {less.high:+.1f})" if less.n > 1 else ""
    return [
        arm,
        f"{fmean(_by_seed(seeds)):.1%}",
        "-" if arm == BASE else f"{less.mean:+.1f}{interval}",
        "-" if arm == BASE else f"{_least(seeds, base):.3f}",
        f"{switches:.1f}",
    ]


def _by_seed(seeds: Seeds) -> list[float]:
    return [
        fmean(float(each["attainment"]) for each in seeds[seed].values()) for seed in sorted(seeds)
    ]


def _least(seeds: Seeds, base: Seeds) -> float:
    first = next(iter(seeds.values()))
    ratios = []
    for case in first:
        theirs, ours = (
            fmean(float(seed[case]["attainment"]) for seed in side.values())
            for side in (seeds, base)
        )
        ratios.append(ours / theirs if theirs else float("inf"))
    return min(ratios)


def _complete(seeds: Seeds, base: Seeds) -> bool:
    return {seed: set(cases) for seed, cases in seeds.items()} == {
        seed: set(cases) for seed, cases in base.items()
    }

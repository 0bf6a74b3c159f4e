"""What did each arm come to at each load, seed by seed? The numbers behind curves over load.

Means have bootstrap intervals over seeds; ratios pair the seeds, whose arrivals all arms
share. Called by the figures and sheets that compare loads.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from evals.report.arms_drawn import drawn_arms
from evals.result.metrics import Result
from evals.result.statistics import Interval, mean_interval, paired_ratio


class LoadCurves:
    """The results of one scenario, looked up by load, arm and seed.

    Attributes:
        loads: sorted.
        arms: in the order of the suite.
        seeds: how many.
        best_fixed: the fixed arm with the highest attainment, loads and seeds counting alike, of
            those that ran at every load.
    """

    def __init__(self, scenario: str, results: Iterable[Result]) -> None:
        self.scenario = scenario
        chosen = [result for result in results if result["scenario"] == scenario]
        self.loads = sorted({float(result["load"]) for result in chosen})
        self.arms = list(dict.fromkeys(str(result["arm"]) for result in chosen))
        self.seeds = len({result.get("seed") for result in chosen})
        self._by_seed: dict[tuple[float, str], dict[int | None, Result]] = {}
        for result in chosen:
            case = self._by_seed.setdefault((float(result["load"]), str(result["arm"])), {})
            case[result.get("seed")] = result
        self.best_fixed = self._best_fixed()

    def by_seed(self, load: float, arm: str) -> dict[int | None, Result]:
        """The results of an arm at a load; empty where it did not run."""
        return self._by_seed.get((load, arm), {})

    def interval(self, load: float, arm: str, key: str) -> Interval | None:
        """Mean over seeds of a figure that every result has; None where the arm did not run."""
        values = [float(result[key]) for result in self.by_seed(load, arm).values()]
        return mean_interval(values) if values else None

    def ratio(self, load: float, arm: str, base: str) -> Interval | None:
        """Goodput of an arm over that of `base`; None where either is missing or base is 0."""
        ours, theirs = self.by_seed(load, arm), self.by_seed(load, base)
        seeds = [seed for seed in ours if seed in theirs]
        if not seeds:
            return None
        return paired_ratio(
            [float(theirs[seed]["goodput_rps"]) for seed in seeds],
            [float(ours[seed]["goodput_rps"]) for seed in seeds],
        )

    def mean_of_any(self, load: float, key: str) -> float | None:
        """Mean over seeds of what is the same for every arm; None where no result says it."""
        found: dict[int | None, float] = {}
        for arm in self.arms:
            for seed, result in self.by_seed(load, arm).items():
                if (value := result.get(key)) is not None:
                    found.setdefault(seed, float(value))
        return fmean(found.values()) if found else None

    def _best_fixed(self) -> str | None:
        scores: dict[str, float] = {}
        for arm in self.arms:
            met = [
                [float(result["attainment"]) for result in self.by_seed(load, arm).values()]
                for load in self.loads
            ]
            if arm.startswith("fixed-") and all(met):
                scores[arm] = fmean(fmean(of_load) for of_load in met)
        return max(scores, key=lambda arm: scores[arm], default=None)

    def strong_arms(self) -> tuple[str, ...]:
        """The arms to draw strongly: what `drawn_arms` says, and the best fixed one."""
        strong = {*drawn_arms(self.arms), self.best_fixed}
        return tuple(arm for arm in self.arms if arm in strong)


def load_curves(results: Sequence[Result]) -> list[LoadCurves]:
    """One per scenario, in order."""
    scenarios = dict.fromkeys(str(result["scenario"]) for result in results)
    return [LoadCurves(scenario, results) for scenario in scenarios]

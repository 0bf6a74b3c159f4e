"""What did each arm come to over seeds? Figures of many cases as one table, with intervals.

Arms are compared in pairs: on cases (scenario, load, seed) that both have. Cases of one
seed count alike, then seeds are the sample. Called by tables, plots and result pages.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evals.result.metrics import Result
from evals.result.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    paired_p,
    paired_ratio,
)

CASE = ["scenario", "load", "seed"]
# Attainment of the tenants and classes that words were about, and of all others.
MET_NAMED, MET_OTHERS = "attainment_by_words.named", "attainment_by_words.others"
FIGURES = (
    "requests", "capacity_rps", "load_counted", "offered_rps", "goodput_rps",
    "goodput_tokens_per_s", "goodput_weighted_rps", "attainment", "attainment_weighted",
    "attainment_worst_tenant", MET_NAMED, MET_OTHERS,
    "bound_rps", "bound_share", "bound_binding", "ttft_s.p50",
    "ttft_s.p90", "ttft_s.p99", "tpot_s.p50", "tpot_s.p90", "tpot_s.p99", "itl_s.p99", "e2e_s.p50",
    "e2e_s.p90", "e2e_s.p99", "not_served",
    "jain_by_tenant", "stability.worst", "stability.deviation", "stability.switches_per_hour",
    "switches", "preemptions", "recomputed_tokens", "longest_gap_s.p99",
    "lateness_s.p50", "lateness_s.p99", "lateness_s.max", "lengths_told", "wrong_lengths",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """A row per case and arm, with figures by name: `goodput_rps`, `ttft_s.p90`, ..."""

    rows: pd.DataFrame

    @classmethod
    def of(cls, results: Sequence[Result | Mapping[str, Any]]) -> "Summary":
        """From results as runs give them; what is inside a key is named `key.inner`."""
        rows = pd.json_normalize([dict(result) for result in results], max_level=1)
        tenants = [each for each in rows if str(each).startswith("attainment_by_tenant.")]
        rows["attainment_worst_tenant"] = rows[tenants].min(axis=1)
        if "seed" not in rows:
            rows["seed"] = 0
        return cls(rows)

    def csv(self) -> str:
        """The rows for a spreadsheet; what a result does not say stays empty."""
        columns = [name for name in (*CASE, "arm", *FIGURES) if name in self.rows]
        columns += [str(name) for name in self.rows if str(name).startswith("chosen.")]
        text: str = self.rows[columns].round(6).to_csv(index=False, lineterminator="\n")
        return text

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """From a summary.csv.

        Raises:
            OSError: there is none.
        """
        return cls(pd.read_csv(path, keep_default_na=False, na_values=[""]))

    def only(self, **where: object) -> "Summary":
        """The cases of a scenario, a load."""
        rows = self.rows
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return Summary(rows)

    def each(self, column: str) -> list[Any]:
        """The values of a column, each once, in order."""
        return list(dict.fromkeys(self.rows[column]))

    def stretches(self) -> list[tuple[str, "Summary"]]:
        """(name, cases) by scenario; of several machines a scenario's name says which."""
        return [(name, self.only(scenario=name)) for name in self.each("scenario")]

    def has(self, figure: str) -> bool:
        """Whether any case says it."""
        return figure in self.rows and bool(self.rows[figure].notna().any())

    def mean(self, figure: str, arm: str | None = None) -> Interval | None:
        """Over seeds; of no arm: of what all arms share. None where nobody says it."""
        values = self._values(figure, arm).groupby("seed").mean()
        return mean_interval(values.tolist()) if len(values) else None

    def difference(self, arm: str, base: str, figure: str = "attainment") -> Interval | None:
        """Of an arm less another one; None where they share no case."""
        pairs = self._pairs(arm, base, figure)
        return paired_difference(*pairs) if pairs else None

    def p(self, arm: str, base: str, figure: str = "attainment") -> float | None:
        """Of the paired t test that both arms have the same mean; None of one seed or none."""
        pairs = self._pairs(arm, base, figure)
        return paired_p(*pairs) if pairs else None

    def ratio(self, arm: str, base: str, figure: str = "goodput_rps") -> Interval | None:
        """Of an arm over another one; None where they share no case, or the other has 0."""
        pairs = self._pairs(arm, base, figure)
        return paired_ratio(*pairs) if pairs else None

    def best(self, arms: Sequence[str], figure: str = "attainment") -> str | None:
        """The arm with the highest mean, of `arms` that ran."""
        means = {arm: found.mean for arm in arms if (found := self.mean(figure, arm))}
        return max(means, key=lambda arm: means[arm], default=None)

    def _values(self, figure: str, arm: str | None) -> "pd.Series[float]":
        if figure not in self.rows:
            return pd.Series(dtype=float, index=pd.MultiIndex.from_tuples([], names=CASE))
        rows = self.rows if arm is None else self.rows[self.rows["arm"] == arm]
        rows = rows.dropna(subset=[figure]).drop_duplicates(CASE)
        return rows.set_index(CASE)[figure].astype(float)

    def _pairs(self, arm: str, base: str, figure: str) -> tuple[list[float], list[float]] | None:
        """Per seed, of base and of arm."""
        both = pd.concat([self._values(figure, base), self._values(figure, arm)], axis=1).dropna()
        means = both.groupby("seed").mean()
        return (means.iloc[:, 0].tolist(), means.iloc[:, 1].tolist()) if len(means) else None

"""What do situations say? Regret of each contender, and what naming a setting is worth.

Regret: the worth of the best setting that was tried, known afterwards, less that of what was put in
force; in points. Situations of one suite and seed are one observation: its mean counts,
and intervals are over these. Contenders are compared on the same situations.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from evals.agent.namers import BESIDE, BEST, NEIGHBOURS, TREE, twin_name
from evals.agent.scoring import AS_GOOD
from evals.agent.situation_run import Found
from evals.agent.situations import HORIZON_S, MOMENTS, SETTINGS, UNTIL_S, Row
from evals.report.files import rendered
from evals.report.sheet import Sheet, markdown
from evals.result.metrics import rounded
from evals.result.run_result import versions
from evals.result.statistics import Interval, mean_interval

ALL, START, OTHER = "all", "start in force", "another in force"
LEAST_CLUSTERS = 4
NOTHING, LEARNT, SOME, OPEN = "nothing", "learnt", "some", "open"
Pick = Callable[[Row], float]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The situations of one suite and seed; `start` is the setting that H-MAS starts with."""

    suite: str
    start: str
    rows: tuple[Row, ...]


def clusters_of(found: Sequence[Found], start: str) -> list[Cluster]:
    """Every suite and seed."""
    return [
        Cluster(each.suite.name, start, kept.rows)
        for each in found
        for kept in each.by_seed.values()
    ]


def regret(row: Row, name: str) -> float:
    """Of a contender, in points."""
    return 100.0 * (row.best - row.chosen[name].worth)


def over(clusters: Sequence[Cluster], pick: Pick, group: str = ALL) -> Interval | None:
    """Mean over the clusters of what a row says, in a group of rows; None of an empty one."""
    means = []
    for cluster in clusters:
        rows = [
            row for row in cluster.rows
            if group in {ALL, cluster.suite, START if row.in_force == cluster.start else OTHER}
        ]  # fmt: skip
        if rows:
            means.append(fmean(pick(row) for row in rows))
    return mean_interval(means) if means else None


def document(found: Sequence[Found], start: str, learn_from: int) -> dict[str, Any]:
    """The object of `--json`, and all that the page is made of."""
    clusters = clusters_of(found, start)
    rows = [row for cluster in clusters for row in cluster.rows]
    groups = [ALL, *(each.suite.name for each in found), START, OTHER]

    def regrets(name: str) -> dict[str, Any]:
        of = {group: over(clusters, lambda row: regret(row, name), group) for group in groups}
        return {group: asdict(each) for group, each in of.items() if each is not None}

    def of_row(name: str) -> dict[str, Any]:
        chosen = [row.chosen[name] for row in rows]
        return {
            "name": name, "regret": regrets(name),
            "changed": fmean(each.changed for each in chosen),
            "work_s": fmean(each.work_s for each in chosen),
            "tried": fmean(each.tried for each in chosen),
        }  # fmt: skip

    def less(name: str, than: str) -> dict[str, Any]:
        pairs = over(clusters, lambda row: regret(row, than) - regret(row, name))
        assert pairs is not None
        return asdict(pairs)

    alone, known = twin_name(BESIDE), twin_name(BESIDE, BEST)
    kept = [one for each in found for one in each.by_seed.values()]
    spread = over(clusters, lambda row: 100.0 * (row.best - fmean(row.worths)))
    assert spread is not None
    said: dict[str, Any] = rounded({
        "suites": [_about(each) for each in found],
        "situations": len(rows), "clusters": len(clusters), "settings": len(SETTINGS),
        "seeds": len(kept) // len(found), "learnt_from": learn_from,
        "moments": MOMENTS, "horizon_s": HORIZON_S, "until_s": UNTIL_S, "start": start,
        "at_stake": asdict(spread),
        "contenders": [of_row(name) for name in rows[0].chosen],
        "named": {
            namer: {
                "less": less(twin_name(BESIDE, namer), alone),
                "left": less(known, twin_name(BESIDE, namer)),
            }
            for namer in (TREE, NEIGHBOURS, BEST)
        },
        "commits": sorted({each.commit for each in kept}), "versions": versions(),
    })  # fmt: skip
    return said


def _about(found: Found) -> dict[str, Any]:
    """A suite, and what was learnt of its development half."""
    rows = [row for kept in found.by_seed.values() for row in kept.rows]
    sources = [line for kept in found.by_seed.values() for line in kept.sources]
    return {
        "name": found.suite.name, "profile": found.suite.profile, "loads": found.suite.loads,
        "situations": len(rows), "development": found.development,
        "best_fixed": found.learnt.best_fixed, "tree": found.learnt.tree.nodes,
        "neighbours": found.learnt.neighbours.count, "sources": sorted(set(sources)),
    }  # fmt: skip


def sheets(said: dict[str, Any]) -> list[Sheet]:
    """Regret of every contender, and what naming takes off that of the twin."""
    groups = list(said["contenders"][0]["regret"])
    rows = [
        [
            each["name"],
            *(_points(each["regret"][group], group == ALL) for group in groups),
            f"{each['changed']:.0%}",
            f"{each['work_s']:.2f} s, {each['tried']:.0f}" if each["tried"] else "-",
        ]
        for each in said["contenders"]
    ]
    columns = ("contender", *groups, "changes", "twin's work, settings tried")
    note = (
        "Regret in points of attainment, by the contract's weights; 95% interval over "
        f"{said['clusters']} suites and seeds."
    )
    named = [
        [twin_name(BESIDE, namer), *(_points(each, True) for each in known.values())]
        for namer, known in said["named"].items()
    ]
    return [
        Sheet(f"Regret in {said['situations']} situations", columns, rows, note),
        Sheet(
            "What naming takes off the twin's regret", ("contender", "takes off", "leaves"), named,
            f"Points, against `{twin_name(BESIDE)}` and against the best named, in the same "
            "situations.",
        ),
    ]  # fmt: skip


def page(said: dict[str, Any]) -> str:
    """The page of evals/results, from the document alone."""
    return rendered(
        "situations.md.j2", said=said, answer=answer(said), verdict=verdict(said),
        tables=[markdown(sheet) for sheet in sheets(said)],
    )  # fmt: skip


def answer(said: dict[str, Any]) -> list[str]:
    """Two lines: who loses how much, and what a model that names settings could bring."""
    by_name = {each["name"]: each["regret"][ALL] for each in said["contenders"]}
    losses = ", ".join(f"{name} {_points(one, False)}" for name, one in by_name.items()
                       if "named" not in name)  # fmt: skip
    takes = {namer: _points(known["less"], True) for namer, known in said["named"].items()}
    line = f"The twin with {BESIDE} candidates loses {takes[BEST]} less with the truly best named"
    line += f", {takes[TREE]} less with the tree's, {takes[NEIGHBOURS]} with the neighbours'. "
    left = _points(_left(said), True)
    line += {
        NOTHING: "Naming settings adds less than half a point.",
        LEARNT: f"A model that knows more could add {left}: less than half a point.",
        SOME: f"A model that knows more could add {left}.",
        OPEN: f"A model that knows more could have added {left} in these situations; they are too "
        "few to say so of others.",
    }[verdict(said)]
    return [f"Points lost against the best setting known afterwards: {losses}.", line]


def verdict(said: dict[str, Any]) -> str:
    """What a model that names settings can add: NOTHING, nothing to what is LEARNT, SOME, or OPEN.

    Nothing is what surely is less than half a point; that chance would explain it is not enough,
    and a few suites and seeds make nothing sure.
    """
    half_point, left = 100.0 * AS_GOOD, _left(said)
    if said["clusters"] < LEAST_CLUSTERS:
        return OPEN
    if said["named"][BEST]["less"]["high"] < half_point:
        return NOTHING
    if left["high"] < half_point:
        return LEARNT
    return SOME if left["low"] > 0.0 else OPEN


def _left(said: dict[str, Any]) -> dict[str, float]:
    """What the better of tree and neighbours leaves of what the best named brings."""
    left = [said["named"][namer]["left"] for namer in (TREE, NEIGHBOURS)]
    return dict(min(left, key=lambda one: one["mean"]))


def _points(one: dict[str, float], whole: bool) -> str:
    if not whole:
        return f"{one['mean']:.1f}"
    return f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"

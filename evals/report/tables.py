"""What do results say, as tables? The same for terminals, Markdown and the page."""

from collections.abc import Callable, Sequence

from evals.report.sheet import Sheet
from evals.report.summary import MET_NAMED, MET_OTHERS, Summary
from evals.result.statistics import Interval, holm
from evals.suite.contenders import EXACT, HMAS, STOCK

MOST_GROUPS = 8  # tenants with columns of their own


def percent(value: Interval | None) -> str:
    """`81.2% (80.1 to 82.3)`."""
    return "-" if value is None else _text(value, "{:.1%}", lambda x: f"{100 * x:.1f}")


def points(value: Interval | None) -> str:
    """`+1.2 (0.8 to 1.6)`, of shares in points."""
    return "-" if value is None else _text(value, "{:+.1f}", lambda x: f"{x:+.1f}", 100)


def times(value: Interval | None) -> str:
    """`1.31x (1.28 to 1.34)`."""
    return "-" if value is None else _text(value, "{:.2f}x", lambda x: f"{x:.2f}")


def number(value: Interval | None, form: str = "{:.2f}") -> str:
    """`3.42 (3.37 to 3.47)`."""
    return "-" if value is None else _text(value, form, form.format)


def over_loads(name: str, cases: Summary) -> list[Sheet]:
    """Of one scenario: goodput, attainment, H-MAS against the others, the bound."""
    seeds = len(cases.each("seed"))
    note = f"95% intervals over {seeds} seeds." if seeds > 1 else "One seed: no intervals."
    sheets = [
        _grid(f"Goodput in requests/s, {name}", cases, note,
              lambda one, arm: number(one.mean("goodput_rps", arm)),
              offered=("offered_rps", number), bound=("bound_rps", number)),
        _grid(f"Requests that met all their SLOs, {name}", cases, note,
              lambda one, arm: percent(one.mean("attainment", arm))),
    ]  # fmt: skip
    if HMAS in cases.each("arm") and len(cases.each("arm")) > 1:
        paired = "Of H-MAS and the arm, on the same arrivals. " + note
        sheets += [
            _grid(f"Goodput of H-MAS over each arm, {name}", cases, paired,
                  lambda one, arm: times(one.ratio(HMAS, arm)), but=HMAS),
            _grid(f"H-MAS less each arm, in points of attainment, {name}", cases, paired,
                  lambda one, arm: points(one.difference(HMAS, arm)), but=HMAS),
        ]  # fmt: skip
    if cases.has("bound_share"):
        reach = "Goodput over the most that any scheduler could have reached; not always reachable."
        sheets.append(
            _grid(f"Share of the upper bound, {name}", cases, reach,
                  lambda one, arm: percent(one.mean("bound_share", arm)))
        )  # fmt: skip
    return [*sheets, *worth_of_words(name, cases)]


def worth_of_words(name: str, cases: Summary) -> list[Sheet]:
    """What it brings to be told, by what was wanted; none where nothing was said."""
    if not cases.has(MET_NAMED):
        return []
    by_weight = "goodput_weighted_rps"
    rows = [
        [arm, number(cases.mean(by_weight, arm)), times(cases.ratio(arm, HMAS, by_weight)),
         times(cases.ratio(arm, EXACT, by_weight)), percent(cases.mean("attainment_weighted", arm)),
         percent(cases.mean(MET_NAMED, arm)),
         percent(cases.mean(MET_OTHERS, arm))]
        for arm in cases.each("arm")
    ]  # fmt: skip
    heads = ("arm", "weighted goodput/s", f"over {HMAS}, which hears nothing", f"over {EXACT}",
             "met by weight", "met, named", "met, others")  # fmt: skip
    note = (
        "By the weights that were wanted when each request was due, whoever was told. Named: "
        "requests of tenants and classes that words were about, over the whole case. Means over "
        "seeds, in pairs."
    )
    return [Sheet(f"What words are worth, {name}", heads, rows, note)]


def whole_suite(results: Summary) -> list[Sheet]:
    """Every scenario and load counting the same; best first; none of a single case."""
    cases = results.rows[["scenario", "load"]].drop_duplicates()
    arms = results.each("arm")
    if HMAS not in arms or len(arms) < 2 or len(cases) < 2:
        return []
    ran = {arm: rows[["scenario", "load"]].drop_duplicates()
           for arm, rows in results.rows.groupby("arm")}  # fmt: skip
    whole = [arm for arm in arms if len(ran[arm]) == len(cases)]
    means = {arm: results.mean("attainment", arm) for arm in whole}
    ranked = sorted(whole, key=lambda arm: -(found.mean if (found := means[arm]) else 0.0))
    others = [arm for arm in ranked if arm != HMAS]
    p_of = dict(zip(others, holm([results.p(HMAS, arm) for arm in others]), strict=True))
    rows = [
        [arm, percent(means[arm]),
         *(["-", "-", "-"] if arm == HMAS else [points(results.difference(HMAS, arm)),
                                                "-" if (p := p_of[arm]) is None else f"{p:.3f}",
                                                times(results.ratio(HMAS, arm))])]
        for arm in ranked
    ]  # fmt: skip
    note = (
        "Means over scenarios and loads, then over seeds, in pairs by seed. p: paired "
        "t test of the difference, adjusted for the number of arms (Holm)."
    )
    heads = ("arm", "attainment", f"{HMAS} less arm", "p", f"{HMAS} over arm, goodput")
    whole_sheet = Sheet(f"Over the whole suite: {len(cases)} cases a seed", heads, rows, note)
    return [whole_sheet, *worth_of_words("the whole suite", results)]


def one_load(name: str, cases: Summary) -> list[Sheet]:
    """Of one scenario and load: goodput, latencies, the worst tenant; then groups."""
    load = cases.each("load")[0]
    offered, bound = cases.mean("offered_rps"), cases.mean("bound_rps")
    said = [f"{offered.mean:.2f}/s offered"] if offered else []
    said += [f"upper bound {bound.mean:.2f}/s"] if bound else []
    base = (found := cases.mean("goodput_rps", STOCK)) and found.mean
    rows, gaps = [], cases.has("itl_s.p99")  # older results have none
    for arm in cases.each("arm"):
        goodput, met = cases.mean("goodput_rps", arm), cases.mean("attainment", arm)
        if goodput is None or met is None:
            continue
        ratio = f"{goodput.mean / base:.2f}x" if base else "-"
        rows.append([
            arm, f"{goodput.mean:.2f}", ratio, f"{met.mean:.1%}",
            _spread(cases, arm, "ttft_s", 1, 2), _spread(cases, arm, "tpot_s", 1e3, 0),
            *[_spread(cases, arm, "itl_s", 1e3, 0, ("p99",))] * gaps,
        ])  # fmt: skip
    sheet = Sheet(
        f"{name} at {load:g}x capacity" + (f": {', '.join(said)}" if said else ""),
        ("arm", "goodput/s", "vs FCFS", "met", "TTFT s", "TPOT ms", *["ITL ms"] * gaps), rows,
        "TTFT and TPOT are p50/p90/p99; met: share of requests that met all their SLOs."
        + " ITL: p99 of all gaps between tokens." * gaps,
    )  # fmt: skip
    return [sheet, *_groups(name, load, cases)]


def details(name: str, cases: Summary) -> list[Sheet]:
    """Of one scenario: how arms treat tenants and memory, and what they change."""
    figures = {
        "tokens/s": ("goodput_tokens_per_s", "{:.0f}"),
        "weighted/s": ("goodput_weighted_rps", "{:.2f}"),
        "worst tenant": ("attainment_worst_tenant", "{:.1%}"),
        "Jain": ("jain_by_tenant", "{:.3f}"),
        "worst 30 s": ("stability.worst", "{:.1%}"),
        "deviation": ("stability.deviation", "{:.3f}"),
        "switches/h": ("stability.switches_per_hour", "{:.1f}"),
        "preemptions": ("preemptions", "{:.1f}"),
        "recomputed tokens": ("recomputed_tokens", "{:.0f}"),
        "not served": ("not_served", "{:.1f}"),
    }
    shown = {head: figure for head, figure in figures.items() if cases.has(figure[0])}
    rows = [
        [f"{load:g}x", arm,
         *(form.format(found.mean) if (found := one.mean(key, arm)) else "-"
           for key, form in shown.values())]
        for load in cases.each("load")
        for one in [cases.only(load=load)]
        for arm in one.each("arm")
    ]  # fmt: skip
    note = (
        "Means over seeds. Tokens/s: goodput in prompt and output tokens; weighted/s: in requests, "
        "by the contract's weights. Worst 30 s and deviation: of attainment in windows of 30 s. "
        "Recomputed: tokens that preemptions threw away."
    )
    return [Sheet(f"Tenants, steadiness, memory, {name}", ("load", "arm", *shown), rows, note, 2)]


def summary_sheets(results: Summary) -> list[Sheet]:
    """Everything over all loads."""
    sheets = whole_suite(results)
    for name, cases in results.stretches():
        sheets += [*over_loads(name, cases), *details(name, cases)]
    return sheets


def case_sheets(results: Summary) -> list[Sheet]:
    """Every scenario and load by itself."""
    return [
        sheet
        for name, cases in results.stretches()
        for load in cases.each("load")
        for sheet in one_load(name, cases.only(load=load))
    ]


def _grid(
    title: str, cases: Summary, note: str, cell: Callable[[Summary, str], str], *, but: str = "",
    **shared: tuple[str, Callable[[Interval | None], str]],
) -> Sheet:  # fmt: skip
    """Arms by loads; `shared` are rows of what all arms share: a figure and its form."""
    loads = [(load, cases.only(load=load)) for load in sorted(cases.each("load"))]
    rows = [
        [label, *(form(one.mean(figure)) for _, one in loads)]
        for label, (figure, form) in shared.items()
        if cases.has(figure)
    ]
    rows += [
        [arm, *(cell(one, arm) for _, one in loads)] for arm in cases.each("arm") if arm != but
    ]
    return Sheet(title, ("arm", *(f"{load:g}x" for load, _ in loads)), rows, note)


def _groups(name: str, load: float, cases: Summary) -> list[Sheet]:
    sheets = []
    for what in ("class", "tenant"):
        prefix = f"attainment_by_{what}."
        columns = sorted(str(each) for each in cases.rows if str(each).startswith(prefix))
        columns = [column for column in columns if cases.has(column)]
        if not 1 < len(columns) <= MOST_GROUPS:
            continue
        rows = [
            [arm, *(f"{found.mean:.1%}" if (found := cases.mean(column, arm)) else "-"
                    for column in columns)]
            for arm in cases.each("arm")
        ]  # fmt: skip
        heads = ("arm", *(column.removeprefix(prefix) for column in columns))
        sheets.append(Sheet(f"Met per {what}, {name} at {load:g}x", heads, rows))
    return sheets


def _spread(
    cases: Summary, arm: str, figure: str, factor: float, digits: int,
    points: Sequence[str] = ("p50", "p90", "p99"),
) -> str:  # fmt: skip
    found = [cases.mean(f"{figure}.{p}", arm) for p in points]
    return "/".join("-" if each is None else f"{factor * each.mean:.{digits}f}" for each in found)


def _text(value: Interval, form: str, side: Callable[[float], str], factor: float = 1.0) -> str:
    mean = form.format(factor * value.mean)
    if value.n == 1:
        return mean
    return f"{mean} ({side(factor * value.low)} to {side(factor * value.high)})"

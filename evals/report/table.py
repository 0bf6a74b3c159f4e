"""Which arm did best? Results as tables, for terminals and for Markdown.

Reports take results of every seed and show means over seeds; tables show the rows they get.
"""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from evals.report.ablation import ablation_sheets
from evals.report.bound_share import has_bound
from evals.report.details import detail_sheets, preemption_sheet
from evals.report.sheet import markdown, terminal, terminal_name
from evals.report.sheets import all_load_sheets
from evals.report.whole_suite import suite_sheets
from evals.result.metrics import Result
from evals.result.statistics import over_seeds

LEFT_ALIGNED = 3
_BEFORE = ("scenario", "load", "arm", "requests", "goodput/s", "vs FCFS")
_AFTER = (
    "attainment", "worst tenant", "TTFT p50/p90/p99 s", "TPOT p50/p90/p99 ms", "switches",
)  # fmt: skip


def columns(results: Sequence[Result]) -> tuple[str, ...]:
    """Heads of `rows`; `of bound` only where there is a bound."""
    return (*_BEFORE, *(["of bound"] if has_bound(results) else []), *_AFTER)


def rows(results: Sequence[Result]) -> list[list[str]]:
    """One row of text per result, in order; `vs FCFS` is goodput over that of `vllm-fcfs`."""
    bounded = has_bound(results)
    return [
        [
            result["scenario"],
            f"{result['load']:g}x",
            result["arm"],
            str(result["requests"]),
            f"{result['goodput_rps']:.2f}",
            _ratio(result, results),
            *([_share(result.get("bound_share"))] if bounded else []),
            f"{result['attainment']:.1%}",
            f"{result['worst_tenant']} {_worst(result):.1%}",
            _percentiles(result["ttft_s"], 1, 2),
            _percentiles(result["tpot_s"], 1000, 0),
            f"{result['switches']:.3g}",
        ]
        for result in results
    ]


def markdown_table(results: Sequence[Result]) -> str:
    """All results as one Markdown table."""
    heads = columns(results)
    align = ["---" if i < LEFT_ALIGNED else "---:" for i in range(len(heads))]
    lines = [heads, align, *rows(results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown_report(results: Sequence[Result]) -> str:
    """What sums loads up, then the means, what rules add, tenants, preemptions, in Markdown."""
    means = over_seeds(results)
    first = [markdown(sheet) for sheet in (*suite_sheets(results), *all_load_sheets(results))]
    last = [markdown(sheet) for sheet in (*ablation_sheets(means), *detail_sheets(means))]
    return "\n".join([*first, "## All results", "", markdown_table(means), *last])


def terminal_report(results: Sequence[Result]) -> RenderableType:
    """The tables of each scenario and load, preemptions, what rules add, what sums loads up."""
    means = over_seeds(results)
    preempted = [result for result in means if result["preemptions"]]
    scenarios = dict.fromkeys(result["scenario"] for result in preempted)
    sheets = [
        preemption_sheet(name, [r for r in means if r["scenario"] == name]) for name in scenarios
    ]
    sheets += [*ablation_sheets(means), *all_load_sheets(results), *suite_sheets(results)]
    return Group(terminal_table(means), *(terminal(sheet) for sheet in sheets))


def terminal_table(results: Sequence[Result]) -> RenderableType:
    """Three tables per scenario and load, narrow enough for 80 columns; best goodput in bold."""
    tables: list[RenderableType] = []
    for case in dict.fromkeys(_case(result) for result in results):
        chosen = [result for result in results if _case(result) == case]
        by_class = _attainment(chosen, "met per SLO class", "attainment_by_class")
        by_tenant = _attainment(chosen, "met per tenant", "attainment_by_tenant")
        tables += [_performance(chosen), by_class, by_tenant, ""]
    return Group(*tables)


def _performance(results: Sequence[Result]) -> Table:
    first = results[0]
    title = (
        f"{first['scenario']} at {first['load']:g}x capacity: {first['requests']} requests, "
        f"{first['offered_rps']:.2f}/s offered{_bound(first)}"
    )
    heads = ["goodput/s", "vs FCFS", "met", "TTFT s", "TPOT ms"]
    switched = any(result["switches"] for result in results)
    table = _table(title, [*heads, "switches"] if switched else heads)
    table.padding = (0, 0, 0, 0)  # the widest of the three
    best = max(result["goodput_rps"] for result in results)
    for result in results:
        table.add_row(
            terminal_name(result["arm"]),
            f"{result['goodput_rps']:.2f}",
            _ratio(result, results),
            f"{result['attainment']:.1%}",
            _percentiles(result["ttft_s"], 1, 2),
            _percentiles(result["tpot_s"], 1000, 0),
            *([f"{result['switches']:.3g}"] if switched else []),
            style="bold" if result["goodput_rps"] == best and len(results) > 1 else None,
        )
    table.caption = "TTFT and TPOT are p50/p90/p99; met: share of requests that met all their SLOs"
    return table


def _attainment(results: Sequence[Result], title: str, key: str) -> Table:
    groups = sorted({group for result in results for group in result[key]})
    table = _table(title, groups)
    for result in results:
        shares = [result[key].get(group) for group in groups]
        cells = ["-" if s is None else f"{s:.1%}" for s in shares]
        table.add_row(terminal_name(result["arm"]), *cells)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("arm", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    return table


def _ratio(result: Result, results: Sequence[Result]) -> str:
    stock = [r for r in results if r["arm"] == "vllm-fcfs" and _case(r) == _case(result)]
    if not stock or not stock[0]["goodput_rps"]:
        return "-"
    return f"{result['goodput_rps'] / stock[0]['goodput_rps']:.2f}x"


def _bound(result: Result) -> str:
    if result.get("bound_rps") is None:
        return ""
    return f", upper bound {result['bound_rps']:.2f}/s"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _worst(result: Result) -> float:
    return float(result["attainment_by_tenant"][result["worst_tenant"]])


def _percentiles(values: dict[str, float | None], factor: float, digits: int) -> str:
    numbers = [values[key] for key in ("p50", "p90", "p99")]
    return "/".join("-" if n is None else f"{n * factor:.{digits}f}" for n in numbers)


def _case(result: Result) -> tuple[str, float]:
    return result["scenario"], result["load"]

"""Which arm did best? Results as tables, for terminals and for Markdown."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from evals.metrics import Result

COLUMNS = (
    "scenario", "load", "arm", "requests", "goodput/s", "vs FCFS", "attainment", "worst tenant",
    "TTFT p50/p90/p99 s", "TPOT p50/p90/p99 ms", "switches",
)  # fmt: skip
LEFT_ALIGNED = 3


def rows(results: Sequence[Result]) -> list[list[str]]:
    """One row of text per result, in order; `vs FCFS` is goodput over that of `vllm-fcfs`."""
    return [
        [
            result["scenario"],
            f"{result['load']:g}x",
            result["arm"],
            str(result["requests"]),
            f"{result['goodput_rps']:.2f}",
            _ratio(result, results),
            f"{result['attainment']:.1%}",
            f"{result['worst_tenant']} {_worst(result):.1%}",
            _percentiles(result["ttft_s"], 1, 2),
            _percentiles(result["tpot_s"], 1000, 0),
            str(result["switches"]),
        ]
        for result in results
    ]


def markdown_table(results: Sequence[Result]) -> str:
    """All results as one Markdown table."""
    align = ["---" if i < LEFT_ALIGNED else "---:" for i in range(len(COLUMNS))]
    lines = [COLUMNS, align, *rows(results)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def terminal_table(results: Sequence[Result]) -> RenderableType:
    """Two tables per scenario and load, narrow enough for 80 columns; best goodput in bold."""
    tables: list[RenderableType] = []
    for case in dict.fromkeys(_case(result) for result in results):
        chosen = [result for result in results if _case(result) == case]
        tables += [_performance(chosen), _attainment(chosen), ""]
    return Group(*tables)


def _performance(results: Sequence[Result]) -> Table:
    first = results[0]
    title = (
        f"{first['scenario']} at {first['load']:g}x capacity: {first['requests']} requests, "
        f"{first['offered_rps']:.2f}/s offered"
    )
    table = _table(title, ["goodput/s", "vs FCFS", "met", "TTFT s", "TPOT ms", "switches"])
    best = max(result["goodput_rps"] for result in results)
    for result in results:
        table.add_row(
            result["arm"],
            f"{result['goodput_rps']:.2f}",
            _ratio(result, results),
            f"{result['attainment']:.1%}",
            _percentiles(result["ttft_s"], 1, 2),
            _percentiles(result["tpot_s"], 1000, 0),
            str(result["switches"]),
            style="bold" if result["goodput_rps"] == best and len(results) > 1 else None,
        )
    table.caption = "TTFT and TPOT are p50/p90/p99; met: share of requests that met all their SLOs"
    return table


def _attainment(results: Sequence[Result]) -> Table:
    by = ("attainment_by_class", "attainment_by_tenant")
    groups = [(key, group) for key in by for group in sorted({g for r in results for g in r[key]})]
    table = _table("met per SLO class, then per tenant", [group for _, group in groups])
    for result in results:
        shares = [result[key].get(group) for key, group in groups]
        table.add_row(result["arm"], *("-" if s is None else f"{s:.1%}" for s in shares))
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left",
        caption_justify="left",
    )  # fmt: skip
    table.add_column("arm", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _ratio(result: Result, results: Sequence[Result]) -> str:
    stock = [r for r in results if r["arm"] == "vllm-fcfs" and _case(r) == _case(result)]
    if not stock or not stock[0]["goodput_rps"]:
        return "-"
    return f"{result['goodput_rps'] / stock[0]['goodput_rps']:.2f}x"


def _worst(result: Result) -> float:
    return float(result["attainment_by_tenant"][result["worst_tenant"]])


def _percentiles(values: dict[str, float | None], factor: float, digits: int) -> str:
    numbers = [values[key] for key in ("p50", "p90", "p99")]
    return "/".join("-" if n is None else f"{n * factor:.{digits}f}" for n in numbers)


def _case(result: Result) -> tuple[str, float]:
    return result["scenario"], result["load"]

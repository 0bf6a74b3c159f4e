"""How does one read the bench? A table, and a plot of single operations against queue length."""

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

Result = dict[str, Any]
OPERATIONS = {"add": "#0091d5", "abort": "#e69f00", "pop": "#009e73"}
TARGET = 1.03  # of stock's time, at 10,000 waiting and more


def ratio_table(results: Iterable[Result]) -> Table:
    """One row per result. Control: stock against stock, the machine's noise.

    Where rules bind (`case` is `binding`), the ratio is per request in a step.
    """
    table = Table(title="schedule(): the hook's time over stock vLLM's", title_justify="left")
    for name in (
        "waiting", "policy", "rules", "ratio", "rounds", "control", "mean", "+update", "work",
        "hook µs", "switch ms",
    ):  # fmt: skip
        left = name in ("policy", "rules")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for r in results:
        ratio = r["per_request_ratio"] if r["case"] == "binding" else r["ratio"]
        over = r["waiting"] >= 10_000 and ratio > TARGET
        table.add_row(
            f"{r['waiting']:,}", r["policy"], r["case"],
            f"[{'red' if over else 'green'}]{ratio:.3f}[/]",
            f"{r['ratio_low']:.2f}-{r['ratio_high']:.2f}", f"{r['control']:.3f}",
            f"{r['mean_ratio']:.3f}", f"{r['step_ratio']:.3f}",
            "same" if r["same_work"] else f"{r['work']:.2f}",
            f"{r['hook_us']:,.0f}", f"{r['switch_ms']:.1f}",
        )  # fmt: skip
    return table


def operations_table(results: Iterable[Result]) -> Table:
    """Median microseconds of one add, abort and pop, over all policies."""
    table = Table(title="one operation in µs: hook (stock)", title_justify="left")
    for name in ("waiting", *OPERATIONS):
        table.add_column(name, justify="right", no_wrap=True)
    rows = list(results)
    for n in sorted({r["waiting"] for r in rows}):
        times = [
            [_operation_us(rows, n, op, arm) for arm in ("hook", "stock")] for op in OPERATIONS
        ]
        table.add_row(f"{n:,}", *(f"{hook:,.1f} ({stock:,.1f})" for hook, stock in times))
    return table


def engine_table(results: Iterable[Result]) -> Table:
    """One row per case; red where an outcome differs.

    Outcomes: built in a second, if somebody asks for objects instead of columns.
    """
    rows = list(results)
    oracles = {r["case"]: r for r in rows if r["engine"] == "oracle"}
    table = Table(title="engines in virtual time, in CPU time", title_justify="left")
    for name in (
        "case", "requests", "compiled/s", "oracle's", "oracle/s", "ratio", "outcomes/s",
        "different",
    ):  # fmt: skip
        table.add_column(name, justify="left" if name == "case" else "right")
    for r in rows:
        if r["engine"] == "oracle":
            continue
        oracle = oracles[r["case"]]
        table.add_row(
            r["case"], f"{r['requests']:,}", f"{r['requests_per_s']:,.0f}",
            f"{oracle['requests']:,}", f"{oracle['requests_per_s']:,.0f}", f"{r['ratio']:,.0f}",
            f"{r['outcomes_per_s']:,}",
            f"[{'red' if r['different'] else 'green'}]{r['different']}[/]",
        )  # fmt: skip
    return table


def tick_table(results: Iterable[Result]) -> Table:
    """Rates side by side; red where the CPU time at p99 is over its target."""
    rows = list(results)
    table = Table(title="a short tick of the controller, in ms", title_justify="left")
    table.add_column("", no_wrap=True)
    for r in rows:
        table.add_column(f"{r['rate_rps']:g} req/s", justify="right", no_wrap=True)
    for kind in ("all", "quiet", "acting"):
        table.add_row(f"ticks, {kind}", *(f"{r[kind]['ticks']:,}" for r in rows))
        for clock in ("cpu", "wall"):
            for p in ("p50", "p99"):
                key = f"{clock}_{p}_ms"
                table.add_row(f"  {clock} {p}", *(_tick_ms(r, kind, key) for r in rows))
    return table


def _tick_ms(result: Result, kind: str, key: str) -> str:
    value = result[kind][key]
    if value is None:
        return "-"
    judged = (kind, key) == ("all", "cpu_p99_ms")
    colour = "red" if value >= result["target_ms"] else "green"
    return f"[{colour}]{value:.1f}[/]" if judged else f"{value:.1f}"


def decision_table(results: Iterable[Result]) -> Table:
    """Cases side by side; red where the CPU time at p99 is over its target."""
    rows = list(results)
    table = Table(title="a decision of the long horizon", title_justify="left")
    table.add_column("", no_wrap=True)
    for r in rows:
        table.add_column(r["case"], justify="right", no_wrap=True)
    for key in ("running", "waiting", "candidates", "left_out", "forecasts"):
        table.add_row(f"{key} p50", *(f"{r[key]['p50']:,.0f}" for r in rows))
    for key in ("futures", "horizon_s"):
        table.add_row(f"{key}, least", *(f"{r[key]['least']:.0f}" for r in rows))
    for key in ("work_s", "cpu_s"):
        table.add_row(f"{key} p50", *(f"{r[key]['p50']:.2f}" for r in rows))
        table.add_row(f"{key} p99", *(_in_time(r, r[key]["p99"]) for r in rows))
    table.add_row("cpu_s of the first", *(f"{r['cpu_first_s']:.2f}" for r in rows))
    return table


def _in_time(result: Result, value_s: float) -> str:
    colour = "red" if value_s >= result["target_s"] else "green"
    return f"[{colour}]{value_s:.2f}[/]"


def memory_line(memory: Result) -> str:
    """The bytes per waiting request in one sentence."""
    return (
        f"memory per waiting request: {memory['request_bytes']:,} B vLLM's request, "
        f"{memory['stock_bytes']:,} B its place in stock vLLM, "
        f"{memory['hook_added_bytes']:,} B more with the hook "
        f"({memory['hook_added_share']:.0%}; {memory['waiting']:,} requests)"
    )


def operations_plot(results: Iterable[Result], path: Path) -> None:
    """Median time of add, abort and pop over queue length, both axes logarithmic.

    Solid: the hook, median over policies. Dotted: stock. Dashed grey: what log n and n
    would look like from the first point of `add` on.
    """
    rows = [r for r in results if not r["rules"]]
    lengths = sorted({r["waiting"] for r in rows})
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for operation, colour in OPERATIONS.items():
        for arm, line in (("hook", "o-"), ("stock", ".:")):
            times = [_operation_us(rows, n, operation, arm) for n in lengths]
            axes.plot(lengths, times, line, color=colour, label=f"{operation}, {arm}")
    if len(lengths) > 1:
        start = 2 * _operation_us(rows, lengths[0], "add", "hook")
        growth = {
            "n": [n / lengths[0] for n in lengths],
            "log n": [math.log(n) / math.log(lengths[0]) for n in lengths],
        }
        for name, factors in growth.items():
            axes.plot(lengths, [start * f for f in factors], "--", color="#999999", lw=1)
            axes.annotate(name, (lengths[-1], start * factors[-1]), color="#777777", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="waiting requests", ylabel="microseconds, median")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _operation_us(rows: Iterable[Result], waiting: int, operation: str, arm: str) -> float:
    return float(median(r[f"{operation}_{arm}_us"] for r in rows if r["waiting"] == waiting))

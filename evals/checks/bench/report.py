"""How does one read the bench? Tables, and a plot of single operations against queue length."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from evals.report.sheet import Sheet

Result = dict[str, Any]
OPERATIONS = {"add": "#0091d5", "abort": "#e69f00", "pop": "#009e73"}


def ratio_sheet(results: Iterable[Result]) -> Sheet:
    """One row per result: the hook's time over stock's."""
    rows = [
        [
            f"{r['waiting']:,}", r["policy"], r["case"],
            f"{r['per_request_ratio' if r['case'] == 'binding' else 'ratio']:.3f}",
            f"{r['ratio_low']:.2f}-{r['ratio_high']:.2f}", f"{r['control']:.3f}",
            f"{r['mean_ratio']:.3f}", f"{r['step_ratio']:.3f}",
            "same" if r["same_work"] else f"{r['work']:.2f}",
            f"{r['hook_us']:,.0f}", f"{r['switch_ms']:.1f}",
        ]
        for r in results
    ]  # fmt: skip
    heads = ("waiting", "policy", "rules", "ratio", "rounds", "control", "mean", "+update", "work",
             "hook µs", "switch ms")  # fmt: skip
    note = (
        "Ratio: where rules bind, per request in a step; wanted: up to 1.03 at 10,000 waiting and "
        "more. Control: stock against stock, the machine's noise."
    )
    return Sheet("schedule(): the hook's time over stock vLLM's", heads, rows, note, 3)


def operations_sheet(results: Iterable[Result]) -> Sheet:
    """Median microseconds of one add, abort and pop, over all policies."""
    every = list(results)
    rows = [
        [f"{n:,}", *(f"{_operation_us(every, n, each, 'hook'):,.1f} "
                     f"({_operation_us(every, n, each, 'stock'):,.1f})" for each in OPERATIONS)]
        for n in sorted({r["waiting"] for r in every})
    ]  # fmt: skip
    return Sheet("One operation in µs: hook (stock)", ("waiting", *OPERATIONS), rows)


def engine_sheet(results: Iterable[Result]) -> Sheet:
    """One row per case."""
    rows = [
        [r["case"], f"{r['requests']:,}", f"{r['requests_per_s']:,.0f}",
         f"{r['oracle_requests']:,}", f"{r['oracle_requests_per_s']:,.0f}", f"{r['ratio']:,.0f}",
         f"{r['outcomes_per_s']:,}", str(r["different"])]
        for r in results
    ]  # fmt: skip
    heads = ("case", "requests", "compiled/s", "oracle's", "oracle/s", "ratio", "outcomes/s",
             "different")  # fmt: skip
    note = "Outcomes: objects built in a second, for whoever asks for them instead of columns."
    return Sheet("Engines in virtual time, in CPU time", heads, rows, note)


def tick_sheet(results: Sequence[Result]) -> Sheet:
    """Rates side by side."""
    rows = []
    for kind in ("all", "quiet", "acting"):
        rows.append([f"ticks, {kind}", *(f"{r[kind]['ticks']:,}" for r in results)])
        for key in ("cpu_p50_ms", "cpu_p99_ms", "wall_p50_ms", "wall_p99_ms"):
            values = [r[kind][key] for r in results]
            title = " ".join(key.split("_")[:2])
            rows.append([title, *("-" if ms is None else f"{ms:.1f}" for ms in values)])
    heads = ("", *(f"{r['rate_rps']:g} req/s" for r in results))
    note = f"Wanted: CPU p99 of all ticks below {results[0]['target_ms']:g} ms."
    return Sheet("A short tick of the controller, in ms", heads, rows, note)


def decision_sheet(results: Sequence[Result]) -> Sheet:
    """Cases side by side."""
    figures = [
        *((key, "p50", ",.0f") for key in ("running", "waiting", "candidates", "left_out",
                                           "forecasts")),
        ("futures", "least", ".0f"), ("horizon_s", "least", ".0f"),
        *((key, p, ".2f") for key in ("work_s", "cpu_s", "wall_s") for p in ("p50", "p99")),
    ]  # fmt: skip
    rows = [[f"{key} {p}", *(format(r[key][p], form) for r in results)] for key, p, form in figures]
    rows.append(["cpu_s of the first", *(f"{r['cpu_first_s']:.2f}" for r in results)])
    note = f"Wanted: cpu_s p99 below {results[0]['target_s']:g} s."
    return Sheet("A decision of the long horizon", ("", *(r["case"] for r in results)), rows, note)


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

    Solid: the hook, median over policies. Dotted: stock.
    """
    rows = [r for r in results if not r["rules"]]
    lengths = sorted({r["waiting"] for r in rows})
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for operation, colour in OPERATIONS.items():
        for arm, line in (("hook", "o-"), ("stock", ".:")):
            times = [_operation_us(rows, n, operation, arm) for n in lengths]
            axes.plot(lengths, times, line, color=colour, label=f"{operation}, {arm}")
    axes.set(xscale="log", yscale="log", xlabel="waiting requests", ylabel="microseconds, median")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, ncols=2)
    figure.savefig(path, dpi=150)


def _operation_us(rows: Iterable[Result], waiting: int, operation: str, arm: str) -> float:
    return float(median(r[f"{operation}_{arm}_us"] for r in rows if r["waiting"] == waiting))

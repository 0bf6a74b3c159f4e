"""How is a fidelity run read? A table and a plot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evals.checks.fidelity.comparison import TARGET_POINTS, TARGET_SHARE, Comparison
from evals.report.figures import OTHERS, logarithmic
from evals.report.sheet import Sheet, markdown
from evals.result.metrics import Result, rounded
from evals.result.run_result import versions
from serving.contracts import Outcome

_LIVE, _SIMULATED = "-", "--"


def write_files(
    suite: str, seed: int, comparisons: Sequence[Comparison], out: Path
) -> dict[str, Any]:
    """Write fidelity.json, fidelity.md and fidelity.png; the object of the first."""
    results = [rounded(comparison.result) for comparison in comparisons]
    document = {"suite": suite, "seed": seed, "versions": versions(), "results": results}
    out.mkdir(parents=True, exist_ok=True)
    (out / "fidelity.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (out / "fidelity.md").write_text(markdown(fidelity_sheet(results)), encoding="utf-8")
    fidelity_plot(comparisons, out / "fidelity.png")
    return document


def fidelity_sheet(results: Sequence[Result]) -> Sheet:
    """One row per case: live, simulated, and the error."""
    rows = []
    for r in results:
        error, live, simulated = r["error"], r["live"], r["simulated"]
        rows.append((
            f"{r['scenario']} {r['load']:g}x", r["arm"],
            f"{live['attainment']:.1%}", f"{simulated['attainment']:.1%}",
            f"{error['attainment_points']:+.1f}",
            *(_share(error[f"{name}_{p}"]) for name in ("ttft", "tpot") for p in ("p50", "p90")),
            _share(error["step_mean"]), _share(r["step_model"]["total_error"]),
            "yes" if r["within_target"] else "no",
        ))  # fmt: skip
    overhead_ms = results[0]["overhead_s"] * 1000
    return Sheet(
        "Simulated against live",
        ("case", "arm", "live", "sim.", "points", "TTFT p50", "p90", "TPOT p50", "p90",
         "step", "model", "target"),
        rows,
        "Errors are simulated over live, minus 1; points are of attainment. Simulated TTFT has "
        f"the client's overhead at idle added, {overhead_ms:.1f} ms. `model`: the cost model's "
        "predicted over measured time on the steps that ran live, minus 1. `target`: within "
        f"{TARGET_POINTS:g} points of attainment and {TARGET_SHARE:.0%} of TTFT and TPOT.",
        left_aligned=2,
    )  # fmt: skip


def fidelity_plot(comparisons: Sequence[Comparison], path: Path) -> None:
    """TTFT and TPOT of all offered requests, a row per scenario and load; dashed: simulated."""
    rows = list(dict.fromkeys((c.result["scenario"], c.result["load"]) for c in comparisons))
    arms = list(dict.fromkeys(c.result["arm"] for c in comparisons))
    figure = Figure(figsize=(8.6, 0.6 + 2.5 * len(rows)), layout="constrained")
    grid: Any = figure.subplots(len(rows), 2, squeeze=False)
    for c in comparisons:
        row = grid[rows.index((c.result["scenario"], c.result["load"]))]
        colour = OTHERS[arms.index(c.result["arm"]) % len(OTHERS)]
        for axes, latency in zip(row, ("ttft_s", "tpot_s"), strict=True):
            for outcomes, line, side in (
                (c.live, _LIVE, "live"), (c.simulated, _SIMULATED, "simulated")
            ):  # fmt: skip
                axes.step(
                    *_distribution(outcomes, latency), line, where="post", color=colour, lw=1.4,
                    label=f"{c.result['arm']}, {side}",
                )  # fmt: skip
    for (scenario, load), row in zip(rows, grid, strict=True):
        for axes, label in zip(row, ("time to first token (s)", "time per token (s)"), strict=True):
            logarithmic(axes, "x")
            axes.set(ylim=(0, 1.02), xlabel=label, title=f"{scenario} {load:g}x")
            axes.grid(alpha=0.25)
        row[0].set_ylabel("share of offered requests")
    grid[0][1].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)


def _distribution(outcomes: Sequence[Outcome], latency: str) -> tuple[Any, Any]:
    values = np.sort([v for o in outcomes if (v := getattr(o, latency)) is not None])
    return values, np.arange(1, len(values) + 1) / len(outcomes)


def _share(error: float | None) -> str:
    return "-" if error is None else f"{error:+.1%}"

"""How are a fidelity run and a calibration read? Profile, JSON, tables and plots."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evals.checks.fidelity.calibrate import Calibration
from evals.checks.fidelity.fidelity import TARGET_POINTS, TARGET_SHARE, Comparison
from evals.machines.profile_file import SIZES, profile_text
from evals.report.figures import OTHERS, logarithmic
from evals.report.sheet import Sheet, markdown
from evals.result.metrics import Result, rounded
from evals.result.run_result import versions
from serving.contracts import Outcome

_LIVE, _SIMULATED = "-", "--"

_MEASURES = ("samples", "stalls", "stall_s", "error_p50", "error_p90", "total_error", "condition")


def write_fidelity(
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


def write_calibration(calibration: Calibration, out: Path, command: str) -> None:
    """Write NAME.toml, calibration.json and calibration.png."""
    out.mkdir(parents=True, exist_ok=True)
    text = profile_text(calibration.profile, _comments(calibration, command))
    (out / f"{calibration.profile.name}.toml").write_text(text, encoding="utf-8")
    text = json.dumps(calibration_document(calibration), indent=2)
    (out / "calibration.json").write_text(text + "\n", encoding="utf-8")
    _plot(calibration, out / "calibration.png")


def calibration_document(calibration: Calibration) -> dict[str, Any]:
    """The object of `hmas calibrate --json`."""
    fit, profile = calibration.fit, calibration.profile
    return {
        "name": profile.name,
        "provenance": profile.provenance,
        "cost": asdict(fit.cost),
        "sizes": {key: getattr(profile, key) for key in SIZES},
        "fit": {key: getattr(fit, key) for key in _MEASURES},
        "overhead_s": calibration.overhead_s,
        "facts": calibration.facts,
    }


def calibration_sheet(calibration: Calibration) -> Sheet:
    """The coefficients, and how well they fit."""
    rows = [(name, f"{value:.4g}") for name, value in asdict(calibration.fit.cost).items()]
    return Sheet(
        f"Cost model of {calibration.profile.name}", ("coefficient", "seconds"), rows,
        ". ".join(_quality(calibration)) + ".",
    )  # fmt: skip


def _quality(calibration: Calibration) -> list[str]:
    fit = calibration.fit
    return [
        f"{fit.samples} steps, {fit.stalls} stalls left out ({fit.stall_s:.1f} s)",
        f"|measured / predicted - 1|: p50 {fit.error_p50:.1%}, p90 {fit.error_p90:.1%}",
        f"Predicted over measured time in all: {1 + fit.total_error:.3f}",
        f"Client's overhead at idle: {calibration.overhead_s * 1000:.1f} ms of the time to first "
        "token, no part of the profile",
    ]


def _comments(calibration: Calibration, command: str) -> list[str]:
    """Where the profile comes from and how good it is: lines above its keys."""
    facts, share = calibration.facts, calibration.facts["others_cpu_share"]
    others = "what else ran is not known"
    if share is not None:
        others = f"others took {share:.0%} of the CPUs"
    return [
        f"Measured, by `{command}`.",
        f"machine: {facts['accelerator'] or facts['cpu']}; Linux {facts['kernel']}, "
        f"Python {facts['python']}, niceness {facts['niceness']}",
        f"model: {facts['model']}; vLLM {facts['vllm']}; {facts['date']}",
        f"server: {' '.join(facts['server_arguments']) or 'started by hand'}",
        f"load: {facts['load_s']:.0f} s over {len(facts['rungs'])} rungs, "
        f"in {facts['parts']} parts; {others}",
        *_quality(calibration),
        f"condition of the design: {calibration.fit.condition:.0f}",
    ]


def _plot(calibration: Calibration, path: Path) -> None:
    """Predicted over measured step time, both logarithmic; on the line is right."""
    steps = calibration.steps
    measured, predicted = steps.seconds, steps.predicted_s(calibration.fit.cost)
    prefill = steps.shapes[:, 0] > 0
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for chosen, label, colour in (
        (~prefill, "decodes only", OTHERS[0]),
        (prefill, "with prefill", OTHERS[1]),
    ):
        axes.scatter(
            measured[chosen], predicted[chosen], s=5, alpha=0.35, color=colour, lw=0,
            label=f"{label} ({int(chosen.sum()):,} steps)", rasterized=True,
        )  # fmt: skip
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="#767577", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="measured step (s)", ylabel="predicted step (s)",
             title=calibration.profile.name)  # fmt: skip
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)

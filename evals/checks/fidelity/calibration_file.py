"""What is written down of a calibration? A profile with its origin, JSON, a table and a plot."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from evals.checks.fidelity.calibrate import Calibration
from evals.machines.profile_file import SIZES, as_dict, profile_text
from evals.report.figures import OTHERS
from evals.report.sheet import Sheet

_MEASURES = ("samples", "stalls", "stall_s", "error_p50", "error_p90", "total_error", "condition")


def write_files(calibration: Calibration, out: Path, command: str) -> None:
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
        "cost": as_dict(fit.cost),
        "sizes": {key: getattr(profile, key) for key in SIZES},
        "fit": {key: getattr(fit, key) for key in _MEASURES},
        "overhead_s": calibration.overhead_s,
        "facts": calibration.facts,
    }


def calibration_sheet(calibration: Calibration) -> Sheet:
    """The coefficients, and how well they fit."""
    rows = [(name, f"{value:.4g}") for name, value in as_dict(calibration.fit.cost).items()]
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

"""What is written down of a calibration? A profile with its origin, and a JSON document."""

from pathlib import Path
from typing import Any

from evals.checks.fidelity.calibrate import Calibration
from evals.machines.profile_file import SIZES, as_dict, profile_text


def calibration_comments(calibration: Calibration, command: str) -> list[str]:
    """Where the profile comes from and how good it is: lines above its keys."""
    fit, facts = calibration.fit, calibration.facts
    return [
        f"Measured, by `{command}`.",
        f"machine: {facts['accelerator'] or facts['cpu']}; Linux {facts['kernel']}, "
        f"Python {facts['python']}, niceness {facts['niceness']}",
        f"model: {facts['model']}; vLLM {facts['vllm']}; {facts['date']}",
        f"server: {' '.join(facts['server_arguments']) or 'started by hand'}",
        f"load: {facts['load_s']:.0f} s over {len(facts['rungs'])} rungs, "
        f"in {facts['parts']} parts; {_others(facts)}",
        f"samples: {fit.samples} steps; {fit.stalls} stalls left out ({fit.stall_s:.1f} s)",
        f"|measured / predicted - 1|: p50 {fit.error_p50:.1%}, p90 {fit.error_p90:.1%}; "
        f"predicted over measured time in all {1 + fit.total_error:.3f}",
        f"condition of the design: {fit.condition:.0f}",
        f"client's overhead at idle: {calibration.overhead_s * 1000:.1f} ms of the time to first "
        "token; no part of the profile",
    ]


def calibration_document(calibration: Calibration) -> dict[str, Any]:
    """The object of `hmas calibrate --json`."""
    fit, profile = calibration.fit, calibration.profile
    measures = ("samples", "stalls", "stall_s", "error_p50", "error_p90", "total_error",
                "condition")  # fmt: skip
    return {
        "name": profile.name,
        "provenance": profile.provenance,
        "cost": as_dict(fit.cost),
        "sizes": {key: getattr(profile, key) for key in SIZES},
        "fit": {key: getattr(fit, key) for key in measures},
        "overhead_s": calibration.overhead_s,
        "facts": calibration.facts,
    }


def write_profile(calibration: Calibration, path: Path, command: str) -> None:
    """Write the TOML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    comments = calibration_comments(calibration, command)
    path.write_text(profile_text(calibration.profile, comments), encoding="utf-8")


def _others(facts: dict[str, Any]) -> str:
    share = facts["others_cpu_share"]
    return "what else ran is not known" if share is None else f"others took {share:.0%} of the CPUs"

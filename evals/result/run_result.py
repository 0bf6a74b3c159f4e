"""What does a whole run come to? The one object of `--json`, and the runs behind it."""

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evals.result.metrics import CaseRun, Result, rounded
from serving.compat import vllm_version


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What came of a suite: results and runs in the same order."""

    suite: str
    seed: int  # the first seed
    versions: dict[str, str]
    results: list[Result]
    runs: list[CaseRun]
    # The suite as resolved, defaults and options of the command included.
    config: dict[str, Any] = field(default_factory=dict)
    # `commit` and whether it was `dirty`; empty outside a checkout.
    git: dict[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions that decide the figures."""
    try:
        hmas = version("hmas-scheduler")
    except PackageNotFoundError:
        hmas = "not installed"
    return {"hmas": hmas, "python": platform.python_version(), "vllm": vllm_version()}


def git_state() -> dict[str, Any]:
    """Commit of the checkout this runs from, and whether tracked files differ from it."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parents[1]
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {}


def to_json(run: SuiteRun, more: Mapping[str, Any] | None = None) -> str:
    """The public object as text, and `more` keys: sorted, rounded floats, no times, no paths."""
    document: dict[str, Any] = {
        "suite": run.suite,
        "seed": run.seed,
        "versions": run.versions,
        "results": run.results,
    }
    if run.config:
        document |= {"config": run.config, "git": run.git}
    document |= more or {}
    return json.dumps(rounded(document), indent=2, sort_keys=True, allow_nan=False)

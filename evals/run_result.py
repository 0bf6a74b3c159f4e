"""What does a whole run come to? The one object of `--json`, and the runs behind it."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from evals.metrics import CaseRun, Result, rounded
from serving.compat import vllm_version


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What came of a suite: results and runs in the same order."""

    suite: str
    seed: int
    versions: dict[str, str]
    results: list[Result]
    runs: list[CaseRun]


def versions() -> dict[str, str]:
    """Versions that decide the figures."""
    try:
        hmas = version("hmas-scheduler")
    except PackageNotFoundError:
        hmas = "not installed"
    return {"hmas": hmas, "python": platform.python_version(), "vllm": vllm_version()}


def to_json(run: SuiteRun) -> str:
    """The public object as text: sorted keys, rounded floats, no times and no paths."""
    document: dict[str, Any] = {
        "suite": run.suite,
        "seed": run.seed,
        "versions": run.versions,
        "results": run.results,
    }
    return json.dumps(rounded(document), indent=2, sort_keys=True, allow_nan=False)

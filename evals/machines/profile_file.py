"""How are machine profiles read and written? TOML: keys for the simulator, comments for people."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from evals.suite.suite import Suite
from evals.suite.toml_file import SuiteError, read_toml
from serving.engines.profile import EngineProfile

PROFILES = Path(__file__).parents[1] / "profiles"
SIZES = ("max_active_requests", "token_budget", "kv_blocks", "block_size", "max_model_len",
         "prefix_caching")  # fmt: skip
_IN_A_ROW = 8  # residuals


def load_profile(name: str) -> EngineProfile:
    """Read a profile by name, or from a file where `name` ends in `.toml`.

    Raises:
        SuiteError: there is none, or it is broken.
    """
    if name.endswith(".toml"):
        return read_toml(Path(name), EngineProfile)
    if name not in (known := profile_names()):
        raise SuiteError(f"profile: no {name!r} in evals/profiles; known: {', '.join(known)}")
    return read_toml(PROFILES / f"{name}.toml", EngineProfile)


def machine_of(suite: Suite, profile_name: str | None = None) -> EngineProfile:
    """The machine of a suite: its profile or another, with the suite's KV blocks if it has its own.

    Raises:
        SuiteError: there is no such profile.
    """
    profile = load_profile(profile_name or suite.profile)
    if suite.kv_blocks is None:
        return profile
    words = f"{profile.provenance}; {suite.kv_blocks} KV blocks by the suite"
    return replace(profile, kv_blocks=suite.kv_blocks, provenance=words)


def profile_names() -> list[str]:
    """The profiles in evals/profiles."""
    return sorted(file.stem for file in PROFILES.glob("*.toml"))


def profile_text(profile: EngineProfile, comments: Sequence[str]) -> str:
    """The profile as TOML that `load_profile` reads; what no key holds stands in the comments."""
    lines = [f"# {line}" for line in comments]
    # Strings, whole numbers and truths are the same in JSON as in TOML.
    lines += [
        f"{key} = {json.dumps(getattr(profile, key), ensure_ascii=False)}"
        for key in ("name", "provenance", *SIZES)
    ]
    if profile.residuals:
        cells = [f"{value:.4f}," for value in profile.residuals]
        rows = [cells[i : i + _IN_A_ROW] for i in range(0, len(cells), _IN_A_ROW)]
        lines += ["residuals = [", *("  " + " ".join(row) for row in rows), "]"]
    others = {f"other_costs.{engine}": cost for engine, cost in profile.other_costs.items()}
    for name, cost in {"cost": profile.cost, **others}.items():
        lines += ["", f"[{name}]", *(f"{key} = {value:.4g}" for key, value in asdict(cost).items())]
    return "\n".join(lines) + "\n"

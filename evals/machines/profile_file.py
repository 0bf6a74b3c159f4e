"""How are machine profiles read and written? TOML: keys for the simulator, comments for people."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

from evals.suite.suite import Suite
from evals.suite.toml_file import SuiteError, read_toml
from serving.contracts import CostCoefficients
from serving.engines.profile import EngineProfile

PROFILES = Path(__file__).parents[1] / "profiles"
SIZES = ("max_active_requests", "token_budget", "kv_blocks", "block_size", "max_model_len",
         "prefix_caching")  # fmt: skip
_COEFFICIENTS = (
    "base_s", "per_prefill_token_s", "per_decode_s", "per_context_token_s", "per_square_s",
)  # fmt: skip
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


def as_dict(cost: CostCoefficients) -> dict[str, float]:
    """Coefficients by name, as in a profile."""
    return dict(zip(_COEFFICIENTS, astuple(cost), strict=True))


def profile_text(profile: EngineProfile, comments: Sequence[str]) -> str:
    """The profile as TOML that `load_profile` reads; what no key holds stands in the comments."""
    keys = {"name": profile.name, "provenance": profile.provenance}
    sizes = {key: getattr(profile, key) for key in SIZES}
    lines = [f"# {line}" for line in comments]
    lines += [f"{key} = {_toml(value)}" for key, value in (keys | sizes).items()]
    if profile.residuals:
        lines += ["residuals = [", *_rows(profile.residuals), "]"]
    lines += _table("cost", profile.cost)
    for engine, cost in profile.other_costs.items():
        lines += _table(f"other_costs.{engine}", cost)
    return "\n".join(lines) + "\n"


def _rows(values: Sequence[float]) -> list[str]:
    cells = [f"{value:.4f}," for value in values]
    return ["  " + " ".join(cells[i : i + _IN_A_ROW]) for i in range(0, len(cells), _IN_A_ROW)]


def _table(name: str, cost: CostCoefficients) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {value:.4g}" for key, value in as_dict(cost).items())]


def _toml(value: str | int) -> str:
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if isinstance(value, str) else str(value).lower()

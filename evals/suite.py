"""What does an eval run? A suite: scenarios x loads x arms on one engine profile.

Suites are TOML files (evals/suites), profiles too (evals/profiles). Read by the
command line; everything else gets the frozen models below.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evals.arms import expand_arms, parse_arm
from evals.own_server import SMALL_MACHINE
from evals.toml_file import SuiteError, key_error, read_toml
from evals.workloads.synthetic import Lengths
from serving.engines.profile import EngineProfile
from serving.settings import EngineSettings

PROFILES = Path(__file__).parent / "profiles"

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.\-]+$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LengthsSpec(_Model):
    """A lognormal length in tokens."""

    p50: float = Field(ge=1, description="Median.")
    p90: float = Field(ge=1, description="90th percentile.")
    most: int = Field(16_000, ge=1, description="Longer draws are cut here.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p90 <= self.p50:
            raise ValueError("p90 must be above p50")
        return self

    def lengths(self) -> Lengths:
        """As the generator takes it."""
        return Lengths(self.p50, self.p90, self.most)


class TrafficSpec(_Model):
    """What a synthetic tenant sends; only in scenarios with `trace = "synthetic"`."""

    rate_rps: float = Field(gt=0, description="Mean rate, relative to the other tenants.")
    arrival_cv: float = Field(1.0, gt=0, le=20, description="1 is Poisson, above 1 bursty.")
    prompt: LengthsSpec
    output: LengthsSpec


class TenantSpec(_Model):
    """One tenant of a scenario."""

    name: Name
    slo_class: Name
    weight: float = Field(1.0, ge=0, description="Share of the trace's rows; synthetic: unused.")
    priority: int = Field(0, description="vLLM request priority, lower goes first.")
    traffic: TrafficSpec | None = None


class Scenario(_Model):
    """A workload: a trace, cut to size, with tenants drawn onto its rows."""

    name: Name
    trace: Literal["azure-conv", "azure-code", "synthetic"]
    requests: int = Field(ge=2, le=1_000_000)
    length_scale: float = Field(1.0, gt=0, description="Multiplies prompt and output lengths.")
    tenants: tuple[TenantSpec, ...] = Field(min_length=1)

    @field_validator("tenants")
    @classmethod
    def _usable(cls, tenants: tuple[TenantSpec, ...]) -> tuple[TenantSpec, ...]:
        names = [tenant.name for tenant in tenants]
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ, got {names}")
        if sum(tenant.weight for tenant in tenants) <= 0:
            raise ValueError("at least one needs a weight above 0")
        return tenants

    @model_validator(mode="after")
    def _traffic_fits(self) -> Self:
        for tenant in self.tenants:
            if (tenant.traffic is not None) != (self.trace == "synthetic"):
                raise ValueError(
                    f"tenants: {tenant.name}: `traffic` goes with trace = 'synthetic' only"
                )
        return self


class Suite(_Model):
    """A whole suite file."""

    name: Name
    description: str = ""
    seed: int = Field(0, ge=0)
    profile: Name = Field("gpu_8b_assumed", description="A file in evals/profiles, without .toml.")
    loads: tuple[Annotated[float, Field(gt=0, le=20)], ...] = Field(min_length=1)
    arms: tuple[str, ...] = Field(
        min_length=1, description="`fixed-*` stands for every policy, `+*` for each rule alone."
    )
    drain_s: float = Field(
        120.0, ge=0, description="Time after the last arrival; then the rest is `unfinished`."
    )
    settings: EngineSettings = EngineSettings()
    server: tuple[str, ...] = Field(
        SMALL_MACHINE, description="vLLM's arguments, model and port apart, for --serve."
    )
    scenarios: tuple[Scenario, ...] = Field(min_length=1)

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        expanded = expand_arms(arms)
        for arm in expanded:
            parse_arm(arm)
        return expanded

    @field_validator("loads", "arms", "scenarios")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [getattr(value, "name", value) for value in values]
        if len(set(names)) < len(names):
            raise ValueError(f"named twice: {names}")
        return values


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        SuiteError: names file, line and key.
    """
    suite = read_toml(path, Suite)
    for i, scenario in enumerate(suite.scenarios):
        for j, tenant in enumerate(scenario.tenants):
            if suite.settings.slo_of(tenant.slo_class) is None:
                raise key_error(
                    path,
                    ("scenarios", i, "tenants", j, "slo_class"),
                    f"unknown class {tenant.slo_class!r}; define it under [settings.slo_classes]",
                )
    return suite


def load_profile(name: str) -> EngineProfile:
    """Read an engine profile by name.

    Raises:
        SuiteError: there is none of that name, or it is broken.
    """
    path = PROFILES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.toml")))
        raise SuiteError(f"profile: no {name!r} in evals/profiles; known: {known}")
    return read_toml(path, EngineProfile)

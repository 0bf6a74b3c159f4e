"""What does an eval run? A suite: scenarios x loads x arms on one engine profile.

Suites are TOML files (evals/suites). Read by the command line; everything else gets the frozen
models below.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evals.suite.arms import expand_arms, parse_arm
from evals.suite.drift_spec import (
    BurstSpec,
    FloodSpec,
    MixSpec,
    RateSpec,
    SharesSpec,
    SuiteModel,
)
from evals.suite.shapes import Lengths
from evals.suite.toml_file import key_error, read_toml
from serving.contracts.settings import EngineSettings

# SmolLM2 on a small machine: as `hmas demo` serves it, and for the same reasons.
SMALL_MACHINE = ("--max-model-len", "2048", "--max-num-seqs", "32", "--enforce-eager")

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.\-]+$")]


class LengthsSpec(SuiteModel):
    """A lognormal length in tokens."""

    p50: float = Field(ge=1, description="Median.")
    p90: float = Field(ge=1, description="90th percentile.")
    most: int = Field(16_000, ge=1, description="Longer draws are cut here.")
    tail: float | None = Field(
        None, gt=0, le=10, description="Pareto exponent above p90, below 2 heavy; unset: lognormal."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p90 <= self.p50:
            raise ValueError("p90 must be above p50")
        return self

    def lengths(self) -> Lengths:
        """As the generator takes it."""
        return Lengths(self.p50, self.p90, self.most, self.tail)


class TrafficSpec(SuiteModel):
    """What a synthetic tenant sends; only in scenarios with `trace = "synthetic"`."""

    rate_rps: float = Field(gt=0, description="Mean rate, relative to the other tenants.")
    arrival_cv: float = Field(1.0, gt=0, le=20, description="1 is Poisson, above 1 bursty.")
    prompt: LengthsSpec
    output: LengthsSpec


class TenantSpec(SuiteModel):
    """One tenant of a scenario."""

    name: Name
    slo_class: Name
    weight: float = Field(1.0, ge=0, description="Share of the trace's rows; synthetic: unused.")
    priority: int = Field(0, description="vLLM request priority, lower goes first.")
    traffic: TrafficSpec | None = None


class DrawSpec(SuiteModel):
    """Which of ServeGen's clients send; only in scenarios with `trace = "servegen"`."""

    model: Name = Field("deepseek-r1", description="Folder of its clients, below HMAS_TRACES.")
    hours: tuple[Annotated[float, Field(ge=0)], float] = Field(
        (0.0, 24.0), description="From and to, since the first day's midnight."
    )
    clients: int | None = Field(None, ge=1, description="So many, drawn by seed; unset: all.")
    keep: float = Field(1.0, gt=0, le=1, description="Chance of each request to stay.")

    @field_validator("hours")
    @classmethod
    def _grow(cls, hours: tuple[float, float]) -> tuple[float, float]:
        if hours[0] >= hours[1]:
            raise ValueError(f"must grow, got {list(hours)}")
        return hours


class Scenario(SuiteModel):
    """A workload: a trace, cut to size, with tenants drawn onto its rows, and what drifts."""

    name: Name
    trace: Literal["azure-conv", "azure-code", "servegen", "synthetic"]
    draw: DrawSpec | None = None
    requests: int = Field(ge=2, le=1_000_000)
    start: Literal["first", "seed"] = Field(
        "first", description="Rows of the trace: the first ones, or as many from where seed says."
    )
    length_scale: float = Field(1.0, gt=0, description="Multiplies prompt and output lengths.")
    slo_scale: float | None = Field(
        None, gt=0, description="Multiplies every class's targets; unset: as in [settings]."
    )
    load_by: Literal["time", "thinning"] = Field(
        "time",
        description="time: stretch it, bursts keep their shape. thinning: keep the trace's clock, "
        "drop requests or add copies of the trace.",
    )
    rate: RateSpec | None = None
    mix: MixSpec | None = None
    shares: SharesSpec | None = None
    burst: BurstSpec | None = None
    flood: FloodSpec | None = None
    tenants: tuple[TenantSpec, ...] = Field(
        (), description="Unset: those of the suite; of servegen: its clients."
    )

    @field_validator("tenants")
    @classmethod
    def _usable(cls, tenants: tuple[TenantSpec, ...]) -> tuple[TenantSpec, ...]:
        names = [tenant.name for tenant in tenants]
        if len(set(names)) < len(names):
            raise ValueError(f"names must differ, got {names}")
        if tenants and sum(tenant.weight for tenant in tenants) <= 0:
            raise ValueError("at least one needs a weight above 0")
        return tenants

    @model_validator(mode="after")
    def _tenants_fit(self) -> Self:
        if self.trace != "servegen":
            if not self.tenants:
                raise ValueError("tenants: at least one is needed, here or in the suite")
            if self.draw is not None:
                raise ValueError("draw: goes with trace = 'servegen' only")
            return self
        for key in ("tenants", "mix", "shares", "flood"):
            if getattr(self, key):
                raise ValueError(f"{key}: not with trace = 'servegen', whose clients are tenants")
        return self

    @model_validator(mode="after")
    def _traffic_fits(self) -> Self:
        for tenant in self.tenants:
            if (tenant.traffic is not None) != (self.trace == "synthetic"):
                raise ValueError(
                    f"tenants: {tenant.name}: `traffic` goes with trace = 'synthetic' only"
                )
        return self

    @model_validator(mode="after")
    def _drift_fits(self) -> Self:
        if self.flood is not None and self.flood.tenant not in {t.name for t in self.tenants}:
            raise ValueError(f"flood.tenant: no tenant {self.flood.tenant!r} in this scenario")
        if self.mix is not None and self.mix.trace == self.trace:
            raise ValueError(f"mix.trace: {self.trace!r} is the scenario's own trace")
        if self.mix is not None and self.trace == "synthetic":
            raise ValueError("mix: goes with the Azure traces only")
        if (self.mix or self.shares) and self.load_by == "thinning":
            raise ValueError(
                "load_by: 'thinning' adds copies begun elsewhere, which undoes `mix` and `shares`"
            )
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.shares is None:
            return self
        if self.trace == "synthetic":
            raise ValueError("shares: goes with the Azure traces only")
        own = {tenant.name: tenant.weight for tenant in self.tenants}
        if unknown := sorted(self.shares.weights.keys() - own.keys()):
            raise ValueError(f"shares.weights: no tenant {unknown[0]!r} in this scenario")
        if sum((own | self.shares.weights).values()) <= 0:
            raise ValueError("shares.weights: at least one tenant needs a weight above 0")
        return self


class Suite(SuiteModel):
    """A whole suite file."""

    name: Name
    description: str = ""
    question: str = Field("", description="What its page in evals/results answers.")
    caveats: tuple[str, ...] = Field((), description="What a reader of that page must know.")
    seed: int = Field(0, ge=0)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="Each scenario once per seed; unset: `seed` alone."
    )
    profile: Name = Field("h200_llama_8b", description="A file in evals/profiles, without .toml.")
    kv_blocks: int | None = Field(
        None, ge=2, description="KV blocks that the machine has instead of the profile's."
    )
    loads: tuple[Annotated[float, Field(gt=0, le=20)], ...] = Field(min_length=1)
    arms: tuple[str, ...] = Field(
        min_length=1, description="`fixed-*` stands for every policy, `+*` for each rule alone."
    )
    drain_s: float = Field(
        120.0, ge=0, description="Time after the last arrival; then the rest is `unfinished`."
    )
    warmup_s: float = Field(
        0.0, ge=0, description="Requests that arrive earlier are served, but count for nothing."
    )
    settings: EngineSettings = EngineSettings()
    server: tuple[str, ...] = Field(
        SMALL_MACHINE, description="vLLM's arguments, model and port apart, for --serve."
    )
    tenants: tuple[TenantSpec, ...] = Field((), description="Of scenarios that name none.")
    scenarios: tuple[Scenario, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _inherit_tenants(cls, data: Any) -> Any:
        if not (isinstance(data, dict) and data.get("tenants")):
            return data
        scenarios = [
            {"tenants": data["tenants"], **each}
            if isinstance(each, dict) and each.get("trace") != "servegen"
            else each
            for each in data.get("scenarios", ())
        ]
        return {**data, "scenarios": scenarios}

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        expanded = expand_arms(arms)
        for arm in expanded:
            parse_arm(arm)
        return expanded

    @field_validator("loads", "arms", "seeds", "scenarios")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [getattr(value, "name", value) for value in values]
        if len(set(names)) < len(names):
            raise ValueError(f"named twice: {names}")
        return values

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds to run."""
        return self.seeds or (self.seed,)

    def with_requests(self, count: int) -> Self:
        """The suite with so many requests in each scenario."""
        scenarios = tuple(each.model_copy(update={"requests": count}) for each in self.scenarios)
        return self.model_copy(update={"scenarios": scenarios})

    def settings_of(self, scenario: Scenario) -> EngineSettings:
        """The engine's settings for a scenario, with its own `slo_scale` if it has one."""
        if scenario.slo_scale is None:
            return self.settings
        return self.settings.model_copy(update={"slo_scale": scenario.slo_scale})


def load_suite(path: Path) -> Suite:
    """Read a suite file.

    Raises:
        SuiteError: names file, line and key.
    """
    suite = read_toml(path, Suite)
    named: list[tuple[tuple[str | int, ...], tuple[TenantSpec, ...]]] = [((), suite.tenants)]
    named += [(("scenarios", i), each.tenants) for i, each in enumerate(suite.scenarios)]
    for where, tenants in named:
        for j, tenant in enumerate(tenants):
            if suite.settings.slo_of(tenant.slo_class) is None:
                raise key_error(
                    path,
                    (*where, "tenants", j, "slo_class"),
                    f"unknown class {tenant.slo_class!r}; define it under "
                    "[settings.contract.classes]",
                )
    return suite

"""What does an eval run? A suite: scenarios x loads x arms on one engine profile.

Suites are TOML files (evals/suites). Read by the command line; everything else gets the frozen
models below.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evals.suite.arms import expand_arms, parse_arm
from evals.suite.shapes import Span
from evals.suite.toml_file import key_error, read_toml
from evals.suite.traffic_spec import (
    ChangeSpec,
    DrawSpec,
    Half,
    Name,
    SuiteModel,
    TenantSpec,
)
from evals.suite.words_spec import WordsSpec
from serving.contracts.settings import EngineSettings

DEFAULT_PROFILE = "h200_llama_8b"
# SmolLM2 on a small machine: as `hmas demo` serves it, and for the same reasons.
SMALL_MACHINE = ("--max-model-len", "2048", "--max-num-seqs", "32", "--enforce-eager")


class Scenario(SuiteModel):
    """Who sends what, and what changes while they do."""

    name: Name
    trace: Literal["azure-conv", "azure-code", "servegen", "synthetic"]
    draw: DrawSpec | None = None
    length_scale: float = Field(1.0, gt=0, description="Multiplies prompt and output lengths.")
    slo_scale: float | None = Field(
        None, gt=0, description="Multiplies every class's targets; unset: as in [settings]."
    )
    minutes: float | None = Field(
        None, gt=0, le=1440, description="Length of what counts; unset: the suite's."
    )
    changes: tuple[ChangeSpec, ...] = ()
    words: tuple[WordsSpec, ...] = Field((), description="What operators want, in order.")
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
        if self.trace == "servegen":
            if self.tenants:
                raise ValueError("tenants: not with trace = 'servegen', whose clients are tenants")
        elif not self.tenants:
            raise ValueError("tenants: at least one is needed, here or in the suite")
        elif self.draw is not None:
            raise ValueError("draw: goes with trace = 'servegen' only")
        synthetic = self.trace == "synthetic"
        for tenant in self.tenants:
            if (tenant.traffic is not None) + (tenant.sessions is not None) != synthetic:
                raise ValueError(
                    f"tenants: {tenant.name}: wants `traffic` or `sessions` where "
                    "trace = 'synthetic', and neither elsewhere"
                )
        return self

    @model_validator(mode="after")
    def _changes_fit(self) -> Self:
        known = {tenant.name for tenant in self.tenants}
        for change in self.changes:
            if change.tenant is not None and self.trace != "synthetic":
                raise ValueError("changes: those of one tenant go with trace = 'synthetic' only")
            if change.tenant is not None and change.tenant not in known:
                raise ValueError(f"changes: no tenant {change.tenant!r} in this scenario")
        return self


class Suite(SuiteModel):
    """A whole suite file."""

    name: Name
    description: str = ""
    question: str = Field("", description="What its page in evals/results answers.")
    caveats: tuple[str, ...] = Field((), description="What a reader of that page must know.")
    half: Half = Field(
        description="Of each trace, by time: what one tunes on, or what one reports. "
        "any: nothing is tuned, or traffic is synthetic."
    )
    seeds: Annotated[int, Field(ge=1, le=1000)] | tuple[Annotated[int, Field(ge=0)], ...] = Field(
        1, description="So many, from 0 on, or these. Each is another block of the half."
    )
    minutes: float = Field(gt=0, le=1440, description="Length of what counts, in each case.")
    warmup_s: float = Field(
        0.0, ge=0, description="Before that: requests are served, but count for nothing."
    )
    tail_s: float = Field(
        120.0,
        ge=0,
        description="After that, the same; at its end the rest is `unfinished`. "
        "As long as what counts may be under way and still in time.",
    )
    profiles: tuple[Name, ...] = Field(
        (DEFAULT_PROFILE,), min_length=1, description="Machines: files in evals/profiles."
    )
    kv_blocks: int | None = Field(
        None, ge=2, description="KV blocks that machines have instead of their profile's."
    )
    loads: tuple[Annotated[float, Field(gt=0, le=20)], ...] = Field(min_length=1)
    arms: tuple[str, ...] = Field(
        min_length=1, description="`fixed-*` stands for every policy, `+*` for each rule alone."
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

    @field_validator("loads", "arms", "seeds", "profiles", "scenarios")
    @classmethod
    def _distinct(cls, values: Any) -> Any:
        if isinstance(values, int):
            return values
        names = [getattr(value, "name", value) for value in values]
        if len(set(names)) < len(names):
            raise ValueError(f"named twice: {names}")
        return values

    @model_validator(mode="after")
    def _halves_fit(self) -> Self:
        if self.half == "any" and any(each.trace == "servegen" for each in self.scenarios):
            raise ValueError("half: 'development' or 'test' where a scenario has clients' traces")
        return self

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds to run."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def profile(self) -> str:
        """The machine, or the first of several."""
        return self.profiles[0]

    def span(self, scenario: Scenario) -> Span:
        """How long a scenario's cases are, and what of them counts."""
        return Span(60.0 * (scenario.minutes or self.minutes), self.warmup_s, self.tail_s)

    def with_minutes(self, minutes: float) -> Self:
        """The suite with cases of this length."""
        scenarios = tuple(each.model_copy(update={"minutes": minutes}) for each in self.scenarios)
        return self.model_copy(update={"minutes": minutes, "scenarios": scenarios})


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
    for i, scenario in enumerate(suite.scenarios):
        for j, words in enumerate(scenario.words):
            if problems := words.problems(suite.settings.contract):
                raise key_error(path, ("scenarios", i, "words", j, "means"), problems[0])
    return suite

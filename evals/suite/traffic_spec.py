"""How does a suite say what is sent? The checked keys of tenants, sessions, clients and changes.

Shares of the counted time (0 to 1) place what changes. Read as part of a suite
(`evals.suite.suite`).
"""

import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from evals.suite.shapes import Change, Lognormal, Span

Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w.\-]+$")]
Share = Annotated[float, Field(ge=0, lt=1)]
Half = Literal["development", "test", "any"]


class SuiteModel(BaseModel):
    """A part of a suite file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LognormalSpec(SuiteModel):
    """A lognormal quantity: tokens, or seconds."""

    p50: float = Field(gt=0, description="Median.")
    p90: float = Field(gt=0, description="90th percentile.")
    most: float = Field(16_000, gt=0, description="Longer draws are cut here.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.p90 <= self.p50:
            raise ValueError("p90 must be above p50")
        return self

    def lognormal(self) -> Lognormal:
        """As generators take it."""
        return Lognormal(self.p50, self.p90, self.most)


class TrafficSpec(SuiteModel):
    """What a synthetic tenant sends: requests that have nothing to do with each other."""

    rate_rps: float = Field(gt=0, description="Mean rate, relative to the other tenants.")
    arrival_cv: float = Field(1.0, gt=0, le=20, description="1 is Poisson, above 1 bursty.")
    prompt: LognormalSpec
    output: LognormalSpec


class SessionsSpec(SuiteModel):
    """What a tenant with sessions sends: each prompt is what was said so far, and something new.

    The next turn comes the think time after the turn before it would end on a free machine
    (`requests/sessions.py`): an open loop, so that every arm sees the same arrivals.
    """

    rate_rps: float = Field(gt=0, description="Sessions begun, relative to the other tenants.")
    turns: float = Field(ge=1, le=200, description="Mean number of turns; geometric.")
    think_s: LognormalSpec = Field(description="From an answer's end to the next turn.")
    system_tokens: int = Field(0, ge=0, description="All prompts of the tenant begin with these.")
    prompt: LognormalSpec = Field(description="What each turn adds to the prompt.")
    output: LognormalSpec
    most_tokens: int = Field(15_000, ge=1, description="A session ends before it is longer.")


class TenantSpec(SuiteModel):
    """One tenant of a scenario."""

    name: Name
    slo_class: Name
    weight: float = Field(1.0, ge=0, description="Share of a trace's rows; synthetic: unused.")
    priority: int = Field(0, description="vLLM request priority, lower goes first.")
    traffic: TrafficSpec | None = None
    sessions: SessionsSpec | None = None


class DrawSpec(SuiteModel):
    """Which of ServeGen's clients send; only in scenarios with `trace = "servegen"`."""

    model: Name = Field("deepseek-r1", description="Folder of its clients, below HMAS_TRACES.")
    hours: tuple[Annotated[float, Field(ge=0)], float] | None = Field(
        None, description="From and to, since the first day's midnight; unset: all published."
    )
    clients: int | None = Field(None, ge=1, description="So many, drawn by seed; unset: all.")

    @field_validator("hours")
    @classmethod
    def _grow(cls, hours: tuple[float, float] | None) -> tuple[float, float] | None:
        if hours is not None and hours[0] >= hours[1]:
            raise ValueError(f"must grow, got {list(hours)}")
        return hours


class ChangeSpec(SuiteModel):
    """`[[scenarios.changes]]`: from `at` until `until` the rate is `factor` times as high.

    A step is one without `until`, a flash crowd one that is soon over, a ramp has `over`. A tenant
    that joins has the factor 0 until it does, one that leaves has it from then on.
    """

    factor: float = Field(ge=0, le=100, description="0: nothing is sent.")
    at: Share = Field(0.0, description="Where it begins, as a share of the counted time.")
    until: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Where it ends; unset: it lasts."
    )
    over: float = Field(0.0, ge=0, le=1, description="Share of the time that the way there takes.")
    tenant: Name | None = Field(None, description="Whose; unset: everybody's.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if (1.0 if self.until is None else self.until) < self.at + max(self.over, 1e-6):
            raise ValueError("until must be above at + over: it is over before it is there")
        return self

    def change(self, span: Span) -> Change:
        """On the clock of a case; what begins at 0 begins with the warm-up."""
        return Change(
            self.factor,
            span.warmup_s + self.at * span.counted_s if self.at else 0.0,
            math.inf if self.until is None else span.warmup_s + self.until * span.counted_s,
            self.over * span.counted_s,
            self.tenant,
        )

"""How does a suite say that traffic changes during a run? The checked keys of a scenario.

Shares of a run (0 to 1) place what shifts; bursts are in seconds, because what they do to
a queue depends on how long they last. Read as part of a suite (`evals.suite.suite`).
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evals.suite.shapes import Shift

Share = Annotated[float, Field(gt=0, lt=1)]
AzureTrace = Literal["azure-conv", "azure-code"]


class SuiteModel(BaseModel):
    """A part of a suite file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ShiftSpec(SuiteModel):
    """There and back again: `step` and `ramp` at the shares in `at`, `periodic` by `cycles`.

    One share in `at` is a shift that stays; the second leads back, a third there again.
    """

    shape: Literal["step", "ramp", "periodic"]
    at: tuple[Share, ...] = Field((), description="Where each shift begins, as shares of the run.")
    over: float | None = Field(None, gt=0, le=1, description="ramp: share of the run it takes.")
    cycles: int | None = Field(None, ge=1, le=100, description="periodic: times there and back.")

    @model_validator(mode="after")
    def _keys_fit_the_shape(self) -> Self:
        wanted = {"step": ("at",), "ramp": ("at", "over"), "periodic": ("cycles",)}[self.shape]
        for key in ("at", "over", "cycles"):
            if bool(getattr(self, key)) != (key in wanted):
                raise ValueError(f"shape {self.shape!r} takes {' and '.join(wanted)}: see `{key}`")
        for one, following in pairwise((*self.at, 1.0)):
            if following - one < (self.over or 1e-6):
                raise ValueError(f"at: the shift at {one:g} is not over by {following:g}")
        return self

    def shift(self) -> Shift:
        """As the workloads take it."""
        if self.cycles is not None:
            flips = 2 * self.cycles
            return Shift(tuple(i / flips for i in range(1, flips)))
        return Shift(self.at, self.over or 0.0)


class RateSpec(ShiftSpec):
    """`[scenarios.rate]`: the offered rate is `to` times the load's while shifted."""

    to: float = Field(gt=0, le=20)


class MixSpec(ShiftSpec):
    """`[scenarios.mix]`: requests come from another trace while shifted, at the same rate."""

    trace: AzureTrace


class SharesSpec(ShiftSpec):
    """`[scenarios.shares]`: tenants have other weights while shifted, and so has the SLO mix."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        min_length=1, description="By tenant; one that is not named keeps its weight."
    )


class BurstSpec(SuiteModel):
    """`[scenarios.burst]`: the rate is `factor` times the load's, for a while, again and again."""

    factor: float = Field(gt=1, le=20)
    for_s: float = Field(gt=0, le=600, description="Length of one burst.")
    every_s: float = Field(gt=0, description="From the start of one burst to that of the next.")
    first_s: float = Field(60.0, ge=0, description="Start of the first burst.")

    @model_validator(mode="after")
    def _calm_between(self) -> Self:
        if self.every_s <= self.for_s:
            raise ValueError("every_s must be above for_s, else there is no calm between bursts")
        return self


class FloodSpec(SuiteModel):
    """`[scenarios.flood]`: one tenant sends `factor` times as much between two shares of the run.

    What it sends more comes on top: the load is that of the run without the flood.
    """

    tenant: str
    factor: float = Field(gt=1, le=100)
    start: float = Field(ge=0, lt=1)
    end: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be above start")
        return self

"""Which situations shall the case set hold? A suite file that says more than a suite.

The scenarios and loads are those of `hmas eval run`; the arms are the policies in force when a
situation is taken (fixed arms only). Read by `hmas eval agent build`.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from evals.machines.profile_file import load_profile
from evals.suite.arms import parse_arm
from evals.suite.suite import Scenario, Suite
from evals.suite.toml_file import read_toml
from evals.suite.traffic_spec import Name
from hmas_agents.config import Config
from serving.engines.profile import EngineProfile
from serving.policies import POLICIES


class CaseSuite(Suite):
    """A suite, and how situations are taken from its runs; every key has a default."""

    held_out: tuple[Name, ...] = Field(
        (), description="Scenarios that no prompt, rule or model may be tuned on."
    )
    machines: dict[Name, Name] = Field(
        default_factory=dict, description="Scenarios that run on another profile than the suite's."
    )
    allow_policies: tuple[str, ...] = Field(
        Config().control.allow_policies,
        min_length=2,
        description="Policies to choose from in every case; unset: the controller's default.",
    )
    first_s: float = Field(45.0, gt=0, description="When the first situation is taken.")
    every_s: float = Field(
        15.0, gt=0, description="Time between two; at each, the next arm comes into force."
    )
    window_s: float = Field(45.0, gt=0, description="How much of the past a situation holds.")
    max_served: int = Field(200, ge=1, description="Answers that a situation remembers.")
    horizon_s: float = Field(30.0, gt=0, description="How far labels look ahead.")
    draws: int = Field(4, ge=1, le=100, description="Futures behind each label.")
    twin_draws: int = Field(
        2, ge=0, le=100, description="Other futures, for the row `twin`; 0 leaves it out."
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        scenarios = {each.name for each in self.scenarios}
        for key, names in (("held_out", self.held_out), ("machines", tuple(self.machines))):
            if unknown := [name for name in names if name not in scenarios]:
                raise ValueError(f"{key}: no scenario {unknown[0]!r} in this suite")
        if scenarios == set(self.held_out):
            raise ValueError("held_out: at least one scenario must be left to develop with")
        if unknown := [name for name in self.allow_policies if name not in POLICIES]:
            raise ValueError(f"allow_policies: there is no policy {unknown[0]!r}")
        if moving := [arm for arm in self.arms if parse_arm(arm).kind != "fixed"]:
            raise ValueError(f"arms: {moving[0]!r} is no fixed arm; situations need one in force")
        for name, tenant in ((each.name, one) for each in self.scenarios for one in each.tenants):
            if self.settings.slo_of(tenant.slo_class) is None:
                raise ValueError(
                    f"scenarios: {name}: {tenant.name}: unknown class {tenant.slo_class!r}; "
                    "define it under [settings.contract.classes]"
                )
        return self

    def profile_of(self, scenario: Scenario) -> EngineProfile:
        """The machine that a scenario runs on.

        Raises:
            SuiteError: there is no such profile.
        """
        return load_profile(self.machines.get(scenario.name, self.profile))


def load_case_suite(path: Path) -> CaseSuite:
    """Read a case suite.

    Raises:
        SuiteError: names file, line and key.
    """
    return read_toml(path, CaseSuite)

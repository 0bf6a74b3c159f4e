"""Which situations shall the case set hold, and how are they taken from simulated runs?

A suite file that says more than a suite: scenarios and loads are those of `hmas eval run`, the arms
the policies in force when a situation is taken (fixed arms only). One run per scenario, load and
seed: at each moment the situation is recorded as the controller would see it, then the next policy
comes into force, so that situations have different histories. Called by `hmas eval agent build`.
"""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from evals.arms.engine import build_simulated
from evals.arms.steering import Steering
from evals.machines.profile_file import load_profile
from evals.requests.offer import offer
from evals.requests.scenario import build_workload
from evals.sim.suite_run import simulated_capacity_rps
from evals.suite.arms import parse_arm
from evals.suite.suite import Scenario, Suite
from evals.suite.toml_file import read_toml
from evals.suite.traffic_spec import Name
from hmas_agents.case_file import Case
from hmas_agents.config import Config, load_config
from hmas_agents.engine_watch import EngineWatch
from serving.engines.profile import EngineProfile
from serving.engines.tickers import Ticker
from serving.policies import POLICIES

LOOK_S = 2.0  # as often as the controller's short tick
CAPACITY_REQUESTS = 400  # enough to measure what the engine completes per second


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


@dataclass(frozen=True, slots=True)
class Scene:
    """One run to take situations from."""

    suite: CaseSuite
    scenario: Scenario
    load: float
    seed: int

    @property
    def title(self) -> str:
        """How progress and the ids of its cases name it."""
        return f"{self.scenario.name}-{self.load:g}x-{self.seed}"


def scenes_of(suite: CaseSuite) -> list[Scene]:
    """Every run of a suite, scenario by scenario."""
    return [Scene(suite, *each)
            for each in product(suite.scenarios, suite.loads, suite.every_seed)]  # fmt: skip


def take(scene: Scene) -> list[Case]:
    """The unlabelled cases of one run, oldest first.

    Raises:
        WorkloadError, TraceError, SuiteError: the scenario has no usable workload.
    """
    suite, scenario = scene.suite, scene.scenario
    profile = suite.profile_of(scenario)
    workload = build_workload(suite, scenario, scene.seed, profile.max_model_len)
    settings = workload.settings(suite.settings)
    measured = workload.requests[:CAPACITY_REQUESTS]
    capacity_rps = simulated_capacity_rps(profile, settings, measured)
    offered = offer(workload, scene.load * capacity_rps)
    engine = build_simulated(profile, settings, False)
    config = load_config(
        None,
        {
            "control.allow_policies": suite.allow_policies,
            "control.start_policy": suite.allow_policies[0],
            "twin.window_s": suite.window_s,
        },
    )
    watch = EngineWatch(engine, config, None)
    steering = Steering(engine, profile, scene.title)
    taken: list[Case] = []

    def next_arm() -> None:
        # Begins elsewhere in each run, so that no policy has the first situation of all.
        index = len(taken) + round(10 * scene.load) + scene.seed
        arm = parse_arm(suite.arms[index % len(suite.arms)])
        steering.put_in_force(arm, "the next one")

    def look() -> None:
        watch.look()
        at_s = suite.first_s + len(taken) * suite.every_s
        if engine.now() < at_s:
            return
        situation = watch.situation()
        taken.append(Case(
            f"{scene.title}-{len(taken)}", scenario.name,
            "development",  # until `build` knows better
            replace(situation, served=situation.served[-suite.max_served :]),
            suite.allow_policies,
            provenance={
                "kind": "simulated", "suite": suite.name, "profile": profile.name,
                "load": scene.load, "seed": scene.seed, "workload": workload.provenance,
            },
        ))  # fmt: skip
        next_arm()

    next_arm()
    tickers: tuple[Ticker, ...] = ((LOOK_S, look),)
    engine.run(offered.requests, tickers, workload.span.until_s)
    return taken

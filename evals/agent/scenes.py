"""How are situations taken from a simulated run? One run per scenario, load and seed.

At each moment the situation is recorded as the controller would see it, then the next policy
comes into force, so that situations have different histories. Called by `hmas eval agent build`;
the functions take one picklable item, because they run in worker processes.
"""

from dataclasses import dataclass, replace
from itertools import product

from evals.agent.case_suite import CaseSuite
from evals.arms.engine import build_simulated
from evals.arms.steering import Steering
from evals.requests.offer import offer
from evals.requests.scenario import build_workload
from evals.sim.capacity import simulated_capacity_rps
from evals.suite.arms import parse_arm
from evals.suite.suite import Scenario
from hmas_agents.case_file import Case
from hmas_agents.config import load_config
from hmas_agents.engine_watch import EngineWatch
from serving.engines.tickers import Ticker

LOOK_S = 2.0  # as often as the controller's short tick
CAPACITY_REQUESTS = 400  # enough to measure what the engine completes per second


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

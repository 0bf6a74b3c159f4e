"""How does one policy do for the whole run?

The arms `fixed-NAME...`, orders from the literature, what H-MAS starts with, and the best of the
development half.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from evals.arms.case import SimulatedCase
from evals.arms.engine import BuildEngine, RunnableEngine, build_simulated, run_on
from evals.arms.steering import RENEW_S, Steering
from evals.result.metrics import CaseRun
from evals.result.recording import RecordedEngine
from evals.suite.arms import Arm, controller_config, parse_arm
from serving.contracts import TraceRequest
from serving.engines.offered import Workload
from serving.engines.served import Served
from serving.policies import POLICIES

if TYPE_CHECKING:
    from serving.engines.compiled import CompiledEngine

# What is searched for the best fixed arm; of equals the first is taken. Orders by deadline, work
# and value, under rules that have paid: all orders under all rules would take hours.
_ORDERS = ("fcfs", "sjf", "edf", "edf:kappa=3", "edf:kappa=10", "density", "srpt", "slide")
_PACED = ("edf:kappa=3", "edf:kappa=10", "density")
FIXED_ARMS = (
    *(f"fixed-{order}+slack" for order in _ORDERS),
    *(f"fixed-{order}+slack+serial+triage" for order in _ORDERS),
    *(f"fixed-{order}+slack+serial+triage+pace" for order in _PACED),
)


def run_fixed(case: SimulatedCase, build_engine: BuildEngine) -> CaseRun:
    """The arm's policy and rules, in force from before the first arrival."""
    if case.arm.name == "oracle-lengths":
        return _best_told(case)
    arm = in_force(case)
    run = _run(case, arm, build_engine(case.profile, case.settings, False))
    return run if arm is case.arm else replace(run, chosen={"fixed": arm.name})


def in_force(case: SimulatedCase) -> Arm:
    """The fixed arm that a case's arm comes to."""
    if case.arm.policy:
        return case.arm
    if case.arm.name == "best-fixed":
        return parse_arm(case.tuned_machine.best_fixed)
    return parse_arm(start_arm(case))


def start_arm(case: SimulatedCase, policy: str = "") -> str:
    """The fixed arm that is what H-MAS starts with, or another policy with the same rules."""
    control = controller_config(case.controller, {}).control
    return "+".join([f"fixed-{policy or control.start_policy}", *control.start_rules])


def _best_told(case: SimulatedCase) -> CaseRun:
    """The best run of what H-MAS starts with and of the orders by length, on these requests.

    What it starts with may not look at lengths at all: then only another order could use them.
    """
    by_length = [name for name, policy in POLICIES.items() if policy.needs_lengths]
    runs = []
    for name in (start_arm(case), *(start_arm(case, policy) for policy in by_length)):
        engine = build_simulated(case.profile, case.settings, False)
        engine.tell_lengths()
        runs.append(replace(_run(case, parse_arm(name), engine), chosen={"fixed": name}))
    return max(runs, key=case.met)


def serve_fixed(
    engine: "CompiledEngine", case: SimulatedCase, arm: Arm, workload: Workload,
    requests: Sequence[TraceRequest],
) -> Served:  # fmt: skip
    """As `run_fixed`, from columns to columns: outcomes take longer to make than to come about."""
    engine.gaps_of_s = case.counted_s
    steering = Steering(engine, case.profile, case.arm.name)
    steering.put_in_force(arm, "fixed for the whole run")
    tickers = ((RENEW_S, steering.renew),)
    return engine.run_columns(workload, tickers, case.span.until_s, requests=requests)


def _run(case: SimulatedCase, arm: Arm, engine: RunnableEngine) -> CaseRun:
    recorded = RecordedEngine(engine)
    steering = Steering(recorded, case.profile, case.arm.name)
    steering.put_in_force(arm, "fixed for the whole run")
    tickers = ((RENEW_S, steering.renew),)
    return run_on(engine, case, tickers, recorded.decisions)

"""What does each number of replicas make of each load, under each policy?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from evals.arms.steering import Steering
from evals.plan.traffic import Traffic, at_load, targets_ms
from evals.result.metrics import percentiles
from evals.suite.arms import Arm
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import Workload, columns, slos_of
from serving.engines.replica_steps import Hooks
from serving.engines.replicas import ReplicasServed, serve_on_replicas
from serving.engines.step_state import new_state

Result = dict[str, Any]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What to try; `arms` are stock and fixed ones, `meet` is the share that shall meet its SLO."""

    loads: tuple[float, ...]
    replicas: tuple[int, ...]
    arms: tuple[Arm, ...]
    meet: float
    seed: int = 0


def run_plan(traffic: Traffic, options: PlanOptions, on_progress: OnProgress) -> list[Result]:
    """A result for each load, number of replicas and policy; all see the same arrivals."""
    settings = CompiledEngine(traffic.profile, traffic.settings, stock=True).settings
    slos = slos_of(traffic.columns.senders, settings)
    targets = targets_ms(slos)
    hooks = {arm.name: hook_of(traffic, arm) for arm in options.arms}
    runs = len(options.replicas) * len(options.arms)
    total = round(sum(options.loads) * len(traffic.columns)) * runs
    done, results = 0, list[Result]()
    for load in options.loads:
        offered = at_load(traffic, load, options.seed)
        for count, arm in product(options.replicas, options.arms):
            title = f"load {load:g}x, {count} replicas, {policy_of(arm)}"
            served = serve_on_replicas(
                traffic.profile, offered, count, hooks[arm.name], slos,
                partial(_tell, on_progress, title, done, total),
            )  # fmt: skip
            head = {"load": load, "replicas": count, "policy": policy_of(arm)}
            results.append(head | figures(offered, served, targets[offered.sender], count))
            done += len(offered)
    return results


def _tell(on_progress: OnProgress, title: str, before: int, total: int, left: int) -> None:
    on_progress(title, before + left, total)


def hook_of(traffic: Traffic, arm: Arm) -> Hooks | None:
    """The hook that each replica starts with, which knows the senders; None of stock vLLM."""
    if arm.kind == "stock":
        return None
    engine = CompiledEngine(traffic.profile, traffic.settings)
    Steering(engine, traffic.profile, arm.name).put_in_force(arm, "planned")
    senders = traffic.columns.senders
    workload = columns(senders, traffic.profile)
    state = new_state(traffic.profile, workload)
    notes = engine.hook.begin(state, workload, None, senders, 0.0)
    engine.hook.give_lanes()
    return Hooks(engine.hook.core, notes)


def policy_of(arm: Arm) -> str:
    """The policy of an arm as `--policy` takes it."""
    return arm.name.removeprefix("fixed-")


def figures(offered: Workload, run: ReplicasServed, targets: np.ndarray, replicas: int) -> Result:
    """What a run came to; every request counts, one that was turned away as a miss."""
    arrival_s, served = offered.arrival_s, run.served
    span_s = float(arrival_s[-1] - arrival_s[0])
    met = int(served.met(targets).sum())
    return {
        "requests": len(arrival_s),
        "offered_rps": len(arrival_s) / span_s,
        "attainment": met / len(arrival_s),
        "goodput_rps": met / span_s,
        "goodput_per_replica_rps": met / span_s / replicas,
        "ttft_s": percentiles(pd.Series(served.ttft_s)),
        "tpot_s": percentiles(pd.Series(served.tpot_s)),
        "waiting_peak": run.waiting_peak,
        "preemptions": int(served.preemptions.sum()),
    }


def needed(results: Sequence[Result], meet: float) -> list[Result]:
    """For each load and policy the least number of replicas tried from which on all meet it.

    `too_few` is the next smaller number that was tried. Both are None where there is none.
    """
    answers = []
    for load, policy in dict.fromkeys((one["load"], one["policy"]) for one in results):
        tried = [one for one in results if (one["load"], one["policy"]) == (load, policy)]
        enough = too_few = None
        for one in sorted(tried, key=lambda one: -one["replicas"]):
            if one["attainment"] < meet:
                too_few = one["replicas"]
                break
            enough = one["replicas"]
        answers.append({"load": load, "policy": policy, "replicas": enough, "too_few": too_few})
    return answers

"""What does a flood on one replica do to the others, by each replica's shares and by the fleet's?

One tenant floods the first replica of a few. Sessions keep requests where they are, so no router
can spread the flood. Two cases:

- `beside`: each of the others has a replica of its own, and the flooding tenant has usual traffic
  on all of them. It gets a share of the fleet elsewhere already.
- `apart`: the others have traffic on all replicas, and the flooding tenant has none elsewhere. The
  fleet owes it more than an even part where it floods: here the fleet's shares cost the others.

All arms see the same arrivals under one seed. In `replica` each replica shares by the contract as
it is; in `fleet` the controller divides it at each tick, and it acts `DELAY_S` later.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evals.checks.replicas.controller import FleetController
from evals.machines.profile_file import load_profile
from evals.plan.plan import hook_of
from evals.plan.traffic import Traffic, at_load, targets_ms
from evals.requests.columns import RequestColumns
from evals.result.statistics import mean_interval, paired_difference
from evals.suite.arms import parse_arm
from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.contracts.state import full_batch
from serving.core.tenants import DECODE_WORK
from serving.engines.offered import slos_of
from serving.engines.profile import EngineProfile
from serving.engines.replica_tenants import ReplicaTenants
from serving.engines.replicas import RunningReplicas
from serving.fleet.shares import fleet_shares

Case = Literal["beside", "apart"]
Shares = Literal["replica", "fleet"]
Result = dict[str, Any]
OnProgress = Callable[[str, int, int | None], None]

CASES: tuple[Case, ...] = get_args(Case)
FLOODER = "flooder"
DELAY_S = 0.05  # between a look and what follows from it: more than it takes for three replicas
TICK_S = 1.0
REPLICAS = 3
BEGINS_S, ENDS_S, LENGTH_S = 30.0, 90.0, 120.0  # the flood, and all
FLOOD = 2.0  # times what a replica can serve
OTHERS, USUAL = 0.6, 0.25  # of what a replica can serve: the others on it, and the flooding tenant
_MEAN_PROMPT, _MEAN_ANSWER, _SPREAD = 800.0, 150.0, 0.6
FIGURES = ("beside_flood", "others", "flooder", "all")  # attainment of whom, in the flood
DEVIATIONS = ("over_mean", "over_most", "bound_mean")


@dataclass(frozen=True, slots=True)
class FloodOptions:
    """What is run: `policies` are fixed arms without their prefix, such as `fair`."""

    profile: str = "h100_llama_8b"
    policies: tuple[str, ...] = ("fair",)
    cases: tuple[Case, ...] = CASES
    seeds: int = 20


@dataclass(frozen=True, slots=True)
class Flood:
    """The requests of a case.

    Attributes:
        traffic: in order of arrival; sender 0 is the flooding tenant.
        sent_to: the replica of each request.
    """

    traffic: Traffic
    sent_to: NDArray[np.int32]


def run_floods(options: FloodOptions, on_progress: OnProgress) -> list[Result]:
    """A result for each case, policy, way to share and seed."""
    machine = replace(load_profile(options.profile), prefix_caching=False)
    jobs = list(product(options.cases, range(options.seeds), options.policies, get_args(Shares)))
    results = []
    for done, (case, seed, policy, shares) in enumerate(jobs):
        on_progress(f"{case}, {policy}, shares of the {shares}", done, len(jobs))
        head = {"case": case, "policy": policy, "shares": shares, "seed": seed}
        results.append(head | run_flood(draw_flood(machine, case, seed), policy, shares))
    return results


def draw_flood(machine: EngineProfile, case: Case, seed: int) -> Flood:
    """Poisson arrivals and lognormal lengths, the same for all arms."""
    rng = np.random.default_rng([seed, 27])
    rate_rps = capacity_rps(machine)
    streams = [(0, 0, FLOOD * rate_rps, BEGINS_S, ENDS_S)]
    for k in range(REPLICAS):
        if case == "beside":
            streams.append((0, k, USUAL * rate_rps, 0.0, LENGTH_S))
            streams.append((1 + k, k, OTHERS * rate_rps, 0.0, LENGTH_S))
        else:
            each = OTHERS / REPLICAS * rate_rps
            streams += [(1 + i, k, each, 0.0, LENGTH_S) for i in range(REPLICAS)]
    moments, sender, where = [], [], []
    for number, k, rate, from_s, to_s in streams:
        count = rng.poisson(rate * (to_s - from_s))
        moments.append(rng.uniform(from_s, to_s, count))
        sender.append(np.full(count, number, np.int32))
        where.append(np.full(count, k, np.int32))
    arrival_s = np.concatenate(moments)
    order = np.argsort(arrival_s, kind="stable")
    prompt, answer = (_lengths(rng, mean, len(order)) for mean in (_MEAN_PROMPT, _MEAN_ANSWER))
    names = (FLOODER, *(f"tenant{i + 1}" for i in range(REPLICAS)))
    senders = tuple(TraceRequest(0.0, 1, 1, name, "conversational") for name in names)
    columns = RequestColumns(
        arrival_s[order] - arrival_s.min(), prompt, answer, np.concatenate(sender)[order], senders
    )
    return Flood(
        Traffic(f"flood, {case}", columns, machine, EngineSettings()),
        np.concatenate(where)[order],
    )


def capacity_rps(machine: EngineProfile) -> float:
    """Requests per second that a replica can serve."""
    tokens = _MEAN_PROMPT + _MEAN_ANSWER
    batch = full_batch(machine.max_active_requests, machine.kv_blocks * machine.block_size, tokens)
    return 1.0 / sum(machine.cost.request_s(_MEAN_PROMPT, 0.0, _MEAN_ANSWER, batch))


def run_flood(flood: Flood, policy: str, shares: Shares) -> Result:
    """Serve a flood to its end, and say who met what, and what the flooding tenant took too much.

    `over` is work of the flooding tenant in a tick of the flood beyond what the fleet owed it then,
    and `bound` is the most that this could have been: all that the replicas do in a tick which it
    sends to, less what it was owed. Both are in parts of what it was owed.
    """
    traffic = flood.traffic
    hook, workload = hook_of(traffic, parse_arm(f"fixed-{policy}")), at_load(traffic, 1.0, 0)
    assert hook is not None
    slos = slos_of(workload.senders, traffic.settings)
    running = RunningReplicas(traffic.profile, workload, REPLICAS, hook, slos, flood.sent_to)
    tenants = ReplicaTenants(running, hook, workload)
    mean_tokens = np.full(len(tenants.names), _MEAN_PROMPT + DECODE_WORK * _MEAN_ANSWER)
    controller = FleetController(
        tenants, traffic.settings.contract, mean_tokens, traffic.profile
    )
    seen = [(tenants.waiting() * mean_tokens, tenants.work())]
    for now_s in np.arange(TICK_S, LENGTH_S, TICK_S).tolist():
        running.serve(now_s)
        seen.append((tenants.waiting() * mean_tokens, tenants.work()))
        if shares == "fleet":
            controller.look(now_s)
            running.serve(now_s + DELAY_S)
            controller.act()
    running.serve()
    met = running.result().served.met(targets_ms(slos)[workload.sender])
    own, beside = workload.sender == 0, (workload.sender != 0) & (flood.sent_to == 0)
    late = (workload.arrival_s >= BEGINS_S) & (workload.arrival_s < ENDS_S)
    groups = zip(FIGURES, (beside, ~own, own, own | ~own), strict=True)
    return {
        "requests": len(workload),
        "attainment": {name: float(met[late & group].mean()) for name, group in groups},
        **_deviation(seen),
    }


def _deviation(seen: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Result:
    backlogs, works = (np.array(each) for each in zip(*seen, strict=True))
    served = np.maximum(0.0, np.diff(works, axis=0))
    most = served.sum(axis=2).max(axis=0)  # that each replica did in a tick
    first, last = int(BEGINS_S / TICK_S), int(ENDS_S / TICK_S)
    over, bound = [], []
    for tick in range(first, last):
        backlog, done = backlogs[tick + 1], served[tick]
        owed = fleet_shares(np.ones(done.shape[1]), backlog, done)[0]
        sends = (backlog[:, 0] > 0) | (done[:, 0] > 0)
        over.append((done[:, 0].sum() - owed) / owed)
        bound.append((most[sends].sum() - owed) / owed)
    return {
        "over_mean": float(np.mean(over)), "over_most": float(np.max(over)),
        "bound_mean": float(np.mean(bound)),
        "within_bound": bool((np.array(over) <= np.array(bound)).all()),
    }  # fmt: skip


def compared(results: Iterable[Result]) -> list[Result]:
    """For each case and policy the figures by both ways, and their difference, over all seeds."""
    rows = list(results)
    found = []
    for case, policy in dict.fromkeys((one["case"], one["policy"]) for one in rows):
        both = [
            [r for r in rows if (r["case"], r["policy"], r["shares"]) == (case, policy, shares)]
            for shares in get_args(Shares)
        ]
        for figure in (*FIGURES, *DEVIATIONS):
            base, other = ([_figure(r, figure) for r in each] for each in both)
            found.append({
                "case": case, "policy": policy, "figure": figure,
                "replica": mean_interval(base), "fleet": mean_interval(other),
                "difference": paired_difference(base, other),
            })  # fmt: skip
    return found


def _figure(result: Result, name: str) -> float:
    return float(result["attainment"][name] if name in FIGURES else result[name])


def _lengths(rng: np.random.Generator, mean: float, count: int) -> NDArray[np.int32]:
    drawn = rng.lognormal(np.log(mean) - _SPREAD**2 / 2, _SPREAD, count)
    return np.clip(drawn, 1, 8 * mean).astype(np.int32)

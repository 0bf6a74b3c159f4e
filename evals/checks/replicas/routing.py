"""Which router serves a fleet best? The routers of vLLM, of Ray and ours, on the same requests.

A suite's scenarios on a few simulated replicas, each with the setting that the controller starts
with, at loads in parts of what as many stock replicas can serve. How far apart requests in flight
may lie before Ray's prefix router looks at them is chosen for each scenario on the half of the
suite that is not counted; `prefix` has Ray's default, which is never.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evals.machines.profile_file import machine_of
from evals.plan.plan import hook_of
from evals.plan.traffic import Traffic, at_load, longest_tokens, targets_ms
from evals.progress import CaseProgress
from evals.report.figures import colours, legend, svg_file
from evals.requests.columns import RequestColumns
from evals.requests.offer import offer
from evals.requests.scenario import build_workload
from evals.result.statistics import holm, mean_interval, paired_difference, paired_p
from evals.sim.suite_run import capacity_rps_of
from evals.sim.workers import Workers
from evals.suite.arms import parse_arm
from evals.suite.suite import load_suite
from evals.suite.traffic_spec import Half
from serving.engines.offered import slos_of
from serving.engines.replicas import Routing, serve_on_replicas

Result = dict[str, Any]
OURS, TUNED = "deadline", "prefix, tuned"
TRIED = (2.0, 5.0, 10.0, 20.0, 40.0)  # of `Routing.imbalance`
TUNING_SEEDS = 3
_FIGURES = ("attainment", "goodput_rps", "cached_share", "ttft_p50_s", "ttft_p90_s")
STOCK = "stock vLLM, "  # before a router's name


@dataclass(frozen=True, slots=True)
class RoutingOptions:
    """What is run; `setting` is of every replica that is not stock vLLM."""

    suite: Path
    setting: str
    replicas: int = 4
    loads: tuple[float, ...] = (0.8, 1.2)
    seeds: int = 20
    report_s: float = 0.1
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class _Job:
    """One draw of a scenario's requests at a load, and what to serve it with."""

    options: RoutingOptions
    half: Half
    scenario: int
    load: float
    seed: int
    arms: Mapping[str, Routing]


def run_routers(options: RoutingOptions, progress: CaseProgress) -> list[Result]:
    """A result for each scenario, load, seed and arm.

    Raises:
        SuiteError, TraceError, WorkloadError: the suite cannot be run; names file and key.
        WorkerError: a job failed.
    """
    suite = load_suite(options.suite)
    other: Half = "development" if suite.half == "test" else "test"
    scenarios = range(len(suite.scenarios))
    tried = {each: Routing("prefix", imbalance=each) for each in TRIED}
    with Workers(options.jobs, progress) as workers:
        rows = _run(workers, [
            _Job(options, other, scenario, load, seed,
                 {f"{stock}{each:g}": one for stock in ("", STOCK) for each, one in tried.items()})
            for scenario, load, seed in product(scenarios, options.loads, range(TUNING_SEEDS))
        ])  # fmt: skip
        best = {
            (spec.name, stock): max(
                TRIED, key=lambda each: _attainment(rows, spec.name, f"{stock}{each:g}")
            )
            for spec, stock in product(suite.scenarios, ("", STOCK))
        }
        return _run(workers, [
            _Job(options, suite.half, i, load, seed, dict(_arms(options, best, spec.name)))
            for (i, spec), load, seed in product(
                enumerate(suite.scenarios), options.loads, range(options.seeds)
            )
        ])  # fmt: skip


def _arms(
    options: RoutingOptions, best: Mapping[tuple[str, str], float], scenario: str
) -> Iterator[tuple[str, Routing]]:
    for stock in (STOCK, ""):
        for router in ("least-loaded", "power-of-two", "prefix"):
            yield f"{stock}{router}", Routing(router)
        yield f"{stock}{TUNED}", Routing("prefix", imbalance=best[scenario, stock])
    yield OURS, Routing(OURS, options.report_s)


def _run(workers: Workers, jobs: Sequence[_Job]) -> list[Result]:
    return [
        row
        for rows in workers.run(run_job, jobs, _title, lambda job, _: f"{_title(job)}: done")
        for row in rows
    ]


def _title(job: _Job) -> str:
    return f"{job.half} half, scenario {job.scenario}, {job.load:g}x, seed {job.seed}"


def run_job(job: _Job) -> list[Result]:
    """A result for each arm of a job, on the same requests."""
    options, suite = job.options, load_suite(job.options.suite)
    seeds = max(options.seeds, TUNING_SEEDS)
    suite = suite.model_copy(update={"half": job.half, "seeds": seeds})
    spec, machine = suite.scenarios[job.scenario], machine_of(suite)
    machine = replace(machine, noise_seed=job.seed)
    sent = build_workload(suite, spec, job.seed, longest_tokens(machine))
    capacity_rps = options.replicas * capacity_rps_of((sent, machine, suite.settings))
    offered = offer(sent, job.load * capacity_rps)
    settings, span = sent.settings(suite.settings), sent.span
    traffic = Traffic(spec.name, RequestColumns.of(offered.requests), machine, settings)
    workload = at_load(traffic, 1.0, 0)
    slos = slos_of(workload.senders, settings)
    hook = hook_of(traffic, parse_arm(f"fixed-{options.setting}"))
    counts = (workload.arrival_s >= span.warmup_s) & (workload.arrival_s < span.counted_until_s)
    rows = []
    for name, routing in job.arms.items():
        served = serve_on_replicas(
            machine, workload, options.replicas, None if name.startswith(STOCK) else hook, slos,
            routing=replace(routing, seed=job.seed),
        ).served  # fmt: skip
        met = served.met(targets_ms(slos)[workload.sender])[counts]
        rows.append({
            "scenario": spec.name, "load": job.load, "seed": job.seed, "router": name,
            "imbalance": routing.imbalance if name.endswith(TUNED) else None,
            "requests": int(counts.sum()), "attainment": float(met.mean()),
            "goodput_rps": float(met.sum()) / span.counted_s,
            "cached_share": float(
                served.cached_tokens[counts].sum() / workload.prompt_tokens[counts].sum()
            ),
            "ttft_p50_s": float(np.nanmedian(served.ttft_s[counts])),
            "ttft_p90_s": float(np.nanquantile(served.ttft_s[counts], 0.9)),
        })  # fmt: skip
    return rows


def _attainment(rows: Iterable[Result], scenario: str, router: str) -> float:
    found = [
        row["attainment"] for row in rows
        if (row["scenario"], row["router"]) == (scenario, router)
    ]  # fmt: skip
    return float(np.mean(found))


def compared(results: Sequence[Result]) -> list[Result]:
    """For each scenario and load every router's figures, and what ours has more of attainment.

    p is of the paired t test, adjusted for the number of routers (Holm).
    """
    found = []
    for scenario, load in dict.fromkeys((one["scenario"], one["load"]) for one in results):
        case = [one for one in results if (one["scenario"], one["load"]) == (scenario, load)]
        routers = list(dict.fromkeys(one["router"] for one in case))
        values = {
            (router, figure): [one[figure] for one in case if one["router"] == router]
            for router, figure in product(routers, _FIGURES)
        }
        ours = values[OURS, "attainment"]
        others = [router for router in routers if router != OURS]
        p_values = holm([paired_p(values[router, "attainment"], ours) for router in others])
        p_of = dict(zip(others, p_values, strict=True))
        found += [
            {
                "scenario": scenario, "load": load, "router": router,
                **{figure: mean_interval(values[router, figure]) for figure in _FIGURES},
                "ours_more": paired_difference(values[router, "attainment"], ours),
                "p": p_of.get(router),
                "imbalance": next(one["imbalance"] for one in case if one["router"] == router),
            }
            for router in routers
        ]  # fmt: skip
    return found


def plot(compared: Sequence[Result]) -> str:
    """Attainment of each router at each load, a panel for each scenario, as an SVG file."""
    scenarios = list(dict.fromkeys(one["scenario"] for one in compared))
    loads = list(dict.fromkeys(one["load"] for one in compared))
    routers = list(dict.fromkeys(one["router"] for one in compared))
    palette = colours([f"{load:g}x" for load in loads])

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
        for axes, scenario in zip(panels, scenarios, strict=True):
            axes.patch.set_alpha(0)
            axes.grid(axis="x")
            for load in loads:
                met = {
                    one["router"]: one["attainment"] for one in compared
                    if (one["scenario"], one["load"]) == (scenario, load)
                }  # fmt: skip
                means = np.array([met[router].mean for router in routers])
                reach = [means - [met[router].low for router in routers],
                         [met[router].high for router in routers] - means]  # fmt: skip
                axes.errorbar(
                    means, range(len(routers)), xerr=reach, fmt="o", ms=4,
                    color=palette[f"{load:g}x"], label=f"{load:g}x",
                )  # fmt: skip
            axes.set_yticks(range(len(routers)), routers)
            axes.set_xlim(-0.02, 1.02)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_title(f"{scenario}: all SLOs met")
        legend(panels[-1])

    return svg_file("routing", 2.8, draw)

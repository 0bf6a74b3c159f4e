"""How many replicas can one controller drive? Replicas, router and controller in virtual time.

Each replica gets a suite's traffic once more, from its beginning, so that all numbers of replicas
are equally loaded. A router as vLLM's sends each request (`replica_routers`); the controller looks
at every tick, and what it decides is in force as much later as deciding took in CPU time. Not in
it: the network, and the replicas' own work of answering.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evals.checks.replicas.controller import PARTS, FleetController
from evals.plan.plan import hook_of
from evals.plan.traffic import Traffic, at_load, targets_ms
from evals.report.figures import INK, colours, legend, logarithmic, plain, svg_file
from evals.suite.arms import parse_arm
from serving.core.tenants import DECODE_WORK
from serving.engines.offered import slos_of
from serving.engines.replica_tenants import ReplicaTenants
from serving.engines.replicas import RunningReplicas

Result = dict[str, Any]
OnProgress = Callable[[str, int, int | None], None]
AWAY_S = 10.0  # for which a replica stops


@dataclass(frozen=True, slots=True)
class ScaleOptions:
    """What is run; `away` replicas stop in the middle, for `AWAY_S`."""

    replicas: tuple[int, ...]
    seconds: float = 60.0
    load: float = 1.0
    policy: str = "fair"
    tick_s: float = 1.0
    away: int = 0
    seed: int = 0


def begun(traffic: Traffic, seconds: float) -> Traffic:
    """The first seconds of it."""
    rows = np.flatnonzero(traffic.columns.arrival_s < seconds)
    columns = traffic.columns.at(rows)
    return Traffic(traffic.name, columns, traffic.profile, traffic.settings)


def run_scale(traffic: Traffic, options: ScaleOptions, on_progress: OnProgress) -> list[Result]:
    """A result for each number of replicas."""
    first = begun(traffic, options.seconds)
    total = sum(options.replicas)
    results, done = list[Result](), 0
    for count in options.replicas:
        on_progress(f"{count} replicas", done, total)
        results.append(_run(first, count, options))
        done += count
    return results


def _run(traffic: Traffic, count: int, options: ScaleOptions) -> Result:
    workload = at_load(traffic, options.load * count, options.seed)
    hook = hook_of(traffic, parse_arm(f"fixed-{options.policy}"))
    assert hook is not None
    slos = slos_of(workload.senders, traffic.settings)
    running = RunningReplicas(traffic.profile, workload, count, hook, slos)
    tenants = ReplicaTenants(running, hook, workload)
    tokens = workload.prompt_tokens + DECODE_WORK * workload.output_tokens
    sent = np.bincount(tenants.of_request, minlength=len(tenants.names))
    mean_tokens = np.bincount(tenants.of_request, tokens, len(sent)) / np.maximum(sent, 1)
    controller = FleetController(tenants, traffic.settings.contract, mean_tokens, traffic.profile)
    stops_s = options.seconds / 2
    now_s, served_s, wall_s = 0.0, 0.0, time.perf_counter()
    while now_s < options.seconds:
        now_s += options.tick_s
        stopped = stops_s <= now_s < stops_s + AWAY_S
        away = frozenset(range(options.away if stopped else 0))
        for k in away:
            running.hold(k, stops_s + AWAY_S)
        served_s += _serve(running, now_s)
        spent_s = controller.look(now_s, away)
        served_s += _serve(running, now_s + spent_s)
        controller.act()
        now_s = max(now_s, now_s + spent_s - options.tick_s)  # a late look delays the next one
    served_s += _serve(running, float("inf"))
    wall_s = time.perf_counter() - wall_s
    met = running.result().served.met(targets_ms(slos)[workload.sender])
    spent = {part: np.array(controller.spent_s[part]) for part in PARTS}
    ticks_s = np.sum(list(spent.values()), axis=0)
    return {
        "replicas": count, "requests": len(workload), "ticks": len(ticks_s),
        "attainment": float(met.mean()), "wall_s": wall_s, "replicas_cpu_s": served_s,
        "controller_ms": {
            "p50": float(np.median(ticks_s)) * 1e3, "p99": float(np.quantile(ticks_s, 0.99)) * 1e3,
            **{part: float(np.median(each)) * 1e3 for part, each in spent.items()},
        },
        "decisions_per_s": count * len(ticks_s) / float(ticks_s.sum()),
        "controller_share": float(ticks_s.mean()) / options.tick_s,
    }  # fmt: skip


def _serve(running: RunningReplicas, until_s: float) -> float:
    began_s = time.thread_time()
    running.serve(until_s)
    return time.thread_time() - began_s


def plot(results: Sequence[Result], tick_s: float) -> str:
    """CPU time of the replicas and of a controller's tick over their number, as an SVG file."""
    counts = [one["replicas"] for one in results]
    lines = ("a tick", *PARTS)
    palette = colours(lines)

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            plain(axes)
            axes.set_xlabel("replicas")
            logarithmic(axes, "x")
            logarithmic(axes, "y")
        left.plot(counts, [one["replicas_cpu_s"] for one in results], "o-", ms=3, color=INK)
        left.set_title("replicas and router, CPU seconds")
        for line in lines:
            key = "p50" if line == "a tick" else line
            values = [one["controller_ms"][key] for one in results]
            right.plot(counts, values, "o-", ms=3, color=palette[line], label=line)
        right.axhline(tick_s * 1e3, color=INK, lw=0.8, ls="--")
        right.set_title("controller, CPU ms a tick")
        legend(right)

    return svg_file("fleet", 2.8, draw)

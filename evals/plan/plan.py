"""What does each number of replicas make of each load, under each policy, and how does it read?

Tables, the answer in a sentence per load, and a plot.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, PercentFormatter

from evals.arms.steering import Steering
from evals.plan.traffic import Traffic, at_load, targets_ms
from evals.report.figures import INK, colours, plain, svg_file
from evals.report.sheet import Sheet
from evals.result.metrics import percentiles
from evals.suite.arms import Arm
from serving.engines.compiled import CompiledEngine
from serving.engines.offered import Workload, columns, slos_of
from serving.engines.replica_state import Hooks
from serving.engines.replicas import ReplicasServed, serve_on_replicas
from serving.engines.step_state import new_state

Result = dict[str, Any]
OnProgress = Callable[[str, int, int], None]
COLUMNS = 3  # of the plot


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


def sheets(results: Sequence[Result], meet: float) -> list[Sheet]:
    """A table of all figures for each policy, then the attainment of all side by side."""
    loads, counts, policies = (
        list(dict.fromkeys(one[key] for one in results)) for key in ("load", "replicas", "policy")
    )
    whole = [
        Sheet(
            policy,
            ["load", "replicas", "met", "met/s", "each", "TTFT p50", "p90", "p99", "TPOT p99",
             "queue"],
            [_row(one) for one in results if one["policy"] == policy],
        )
        for policy in policies
    ]  # fmt: skip
    met = {(one["load"], one["policy"], one["replicas"]): one["attainment"] for one in results}
    overview = Sheet(
        "Share of requests that met all their SLOs, by replicas",
        ["load, policy", *map(str, counts)],
        [
            [f"{load:g}x {policy}", *(f"{met[load, policy, count]:.0%}" for count in counts)]
            for load in loads
            for policy in policies
        ],
        "met/s: requests that met all their SLOs, per second; each: per replica; queue: most "
        f"that waited at once, on all replicas. Wanted: {meet:.0%}.",
    )
    return [*whole, overview]


def sentences(results: Sequence[Result], meet: float) -> list[str]:
    """The answer, a sentence per load."""
    by_load: dict[float, list[str]] = {}
    rates = {one["load"]: one["offered_rps"] for one in results}
    for one in needed(results, meet):
        enough, too_few = one["replicas"], one["too_few"]
        if enough is None:
            said = f"not with {_replicas(too_few)}"
        else:
            said = f"with {_replicas(enough)}"
            if too_few is not None:
                said += f" ({too_few} {'is' if too_few == 1 else 'are'} too few)"
        by_load.setdefault(one["load"], []).append(f"{said} under {one['policy']}")
    return [
        f"At load {load:g}x ({rates[load]:.1f} requests/s) {meet:.0%} meet their SLOs "
        f"{', '.join(parts)}."
        for load, parts in by_load.items()
    ]


def plot(results: Sequence[Result], meet: float) -> str:
    """Attainment over replicas as an SVG file's text: a panel per load, a line per policy."""
    loads, counts, policies = (
        list(dict.fromkeys(one[key] for one in results)) for key in ("load", "replicas", "policy")
    )
    palette = colours(policies)
    rows = -(-len(loads) // COLUMNS)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, min(COLUMNS, len(loads)), squeeze=False, sharey=True)
        panels = grid.ravel()
        for axes in panels[len(loads) :]:
            axes.set_axis_off()
        for axes, load in zip(panels, loads, strict=False):
            plain(axes)
            of_load = [one for one in results if one["load"] == load]
            for policy in policies:
                met = [one["attainment"] for one in of_load if one["policy"] == policy]
                axes.plot(counts, met, "o-", ms=3, color=palette[policy], label=policy)
            axes.axhline(meet, color=INK, lw=0.8, ls="--")
            axes.set_title(f"load {load:g}x, {of_load[0]['offered_rps']:.1f} requests/s")
            axes.set_xscale("log", base=2)
            axes.set_xticks(counts, [str(count) for count in counts])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(-0.03, 1.03)
        figure.supxlabel("replicas", fontsize=9)
        figure.supylabel("requests that met all their SLOs", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2)

    return svg_file("plan", 0.8 + 2.2 * rows, draw)


def _row(one: Result) -> list[str]:
    ttft = one["ttft_s"]
    return [
        f"{one['load']:g}x", str(one["replicas"]), f"{one['attainment']:.1%}",
        f"{one['goodput_rps']:.1f}", f"{one['goodput_per_replica_rps']:.2f}",
        *(_seconds(ttft[f"p{p}"]) for p in (50, 90, 99)), _seconds(one["tpot_s"]["p99"]),
        f"{one['waiting_peak']:,}",
    ]  # fmt: skip


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1.0 else f"{value:.3g} s"


def _replicas(count: int) -> str:
    return f"{count} replica{'' if count == 1 else 's'}"

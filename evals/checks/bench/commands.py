"""`hmas bench`: what do hook, engines and controller cost? Wiring only; imports come late."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer

from evals.checks.replicas.commands import fleet
from evals.progress import progress_bar
from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import JsonOption

app = typer.Typer(help="What do hook, engines and controller cost? Timings.")
app.command()(fleet)


@app.callback()
def bench() -> None:
    """What do hook, engines and controller cost? Timings."""


@app.command()
def scheduler(
    *,
    waiting: Annotated[
        list[int] | None,
        typer.Option(min=10, help="Requests waiting; repeatable. Default: 100 to 100000."),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Requests in the running batch.")] = 256,
    policies: Annotated[
        str, typer.Option(help="Policies to time, with commas between; default: every one.")
    ] = "",
    rules: Annotated[
        bool,
        typer.Option(
            "--rules/--no-rules", help="Time each policy also with the controller's start rules."
        ),
    ] = True,
    steps: Annotated[
        int, typer.Option(min=12, help="Steps per policy, round and queue length.")
    ] = 180,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds through all policies.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Decides requests and aborts.")] = 0,
    json_output: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for scheduler.json and operations.png.")
    ] = None,
) -> None:
    """Time the hook's schedule() against stock vLLM's on the same queue, step by step in turn.

    With rules twice. `planned`: targets are far away, so the rules plan every step but none binds,
    and both sides schedule the same requests and tokens (`work`: same). `binding`: targets as they
    are; the rules make steps smaller, so there the ratio is of the time per request and step.
    `mean` is of all time, rare long steps included; `ratio` is of the usual step.

    hmas bench scheduler --waiting 10000 --policies edf,slide --no-rules

    hmas bench scheduler --json --out var/bench
    """
    from evals.checks.bench import report
    from evals.checks.bench.scheduler_bench import (
        WAITING,
        BenchOptions,
        memory_per_request,
        run_bench,
    )
    from evals.report.sheet import show
    from serving.policies import POLICIES

    names = tuple(name.strip() for name in policies.split(",") if name.strip()) or tuple(POLICIES)
    _check("--policies: no policy", names, POLICIES)
    options = BenchOptions(names, tuple(waiting or WAITING), running, steps, rounds, rules, seed)
    with progress_bar() as on_progress:
        results = run_bench(options, on_progress)
    memory = memory_per_request()
    document = {"results": results, "memory": memory}
    show(
        document, json_output, report.ratio_sheet(results), report.operations_sheet(results),
        report.memory_line(memory),
    )  # fmt: skip
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report.operations_plot(results, out / "operations.png")
        (out / "scheduler.json").write_text(json.dumps(document, indent=1))
        typer.echo(f"written: {out}/scheduler.json, {out}/operations.png", err=True)


@app.command()
def engine(
    *,
    case: Annotated[
        list[str] | None, typer.Option(help="Case to time; repeatable. Default: all.")
    ] = None,
    requests: Annotated[
        int, typer.Option(min=100, help="Requests of the trace, for the compiled engine.")
    ] = 19_366,
    oracle_requests: Annotated[
        int, typer.Option(min=10, help="vLLM's own scheduler goes on until so many have left.")
    ] = 1000,
    suite: Annotated[
        Path, typer.Option(help="Suite whose first scenario, profile and settings are taken.")
    ] = Path("evals/suites/azure_hour.toml"),
    rounds: Annotated[int, typer.Option(min=1, help="Runs of the compiled engine.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Decides sessions and tenants.")] = 0,
    json_output: JsonOption = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit 1 where an outcome differs, or a case is too slow."),
    ] = False,
) -> None:
    """Time the compiled engine against vLLM's own scheduler, both in virtual time.

    Both serve the same requests in one process, as stock vLLM does, by the policy and the rules
    that the controller starts with, and with all rules. Times are CPU time, of the compiled engine
    the median. `ratio` is of requests per second until so many have left as the oracle serves;
    the compiled engine's `requests_per_s` is of all. It runs in memory that the process has used
    before, as it does in the workers of `hmas eval run`. In cases with a queue (`256 running, 100
    waiting`) all requests come at once, and both stop there. `different` counts requests whose
    outcome (any time, any count) is not the oracle's.

    hmas bench engine

    hmas bench engine --case stock --oracle-requests 3000 --json

    hmas bench engine --suite my_suite.toml --check
    """
    from evals.checks.bench.engine_bench import bench_cases, shortfalls, time_case
    from evals.checks.bench.report import engine_sheet
    from evals.machines.profile_file import machine_of
    from evals.report.sheet import show
    from evals.requests.scenario import build_workload
    from evals.sim.freed_memory import keep_freed_memory
    from evals.suite.suite import load_suite

    keep_freed_memory()
    loaded = load_suite(suite)
    profile = machine_of(loaded)
    workload = build_workload(loaded, loaded.scenarios[0], 0, profile.max_model_len)
    traffic = workload.at_factor(1.0).requests()[:requests]
    cases = {one.name: one for one in bench_cases(traffic, profile, oracle_requests, seed)}
    _check("--case: no", case or (), cases)
    with progress_bar() as on_progress:
        results = [
            time_case(cases[name], loaded.settings, oracle_requests, rounds, on_progress)
            for name in case or cases
        ]
    show({"trace": workload.provenance, "results": results}, json_output, engine_sheet(results))
    if check and (found := shortfalls(results)):
        for line in found:
            typer.echo(line, err=True)
        raise typer.Exit(FAILED)


@app.command()
def tick(
    *,
    rate: Annotated[
        list[float] | None,
        typer.Option(min=0.1, help="Requests per second; repeatable. Default: 10 and 100."),
    ] = None,
    waiting: Annotated[int, typer.Option(min=0, help="Requests in the queue.")] = 10_000,
    ticks: Annotated[int, typer.Option(min=100, help="Ticks per rate, after a warm-up.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Decides lengths and misses.")] = 0,
    json_output: JsonOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where the CPU time at p99 is 20 ms or more.")
    ] = False,
) -> None:
    """Time the controller's short tick: state, alarms, rule agents, arbiter, graph, tools, ledger.

    On an engine in memory that answers at once: a real one adds its answer.

    hmas bench tick --rate 10 --rate 100 --waiting 10000

    hmas bench tick --json --check
    """
    from evals.checks.bench.controller_bench import TARGET_MS, time_ticks
    from evals.checks.bench.report import tick_sheet
    from evals.report.sheet import show

    with progress_bar() as on_progress:
        results = [
            time_ticks(each, waiting, ticks, seed, on_progress) for each in rate or (10.0, 100.0)
        ]
    show({"results": results}, json_output, tick_sheet(results))
    if check and any(result["all"]["cpu_p99_ms"] >= TARGET_MS for result in results):
        raise typer.Exit(FAILED)


@app.command()
def decision(
    *,
    decisions: Annotated[int, typer.Option(min=2, help="Decisions of each case.")] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Decides arrivals and lengths.")] = 0,
    json_output: JsonOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where the CPU time at p99 is 1 s or more.")
    ] = False,
) -> None:
    """Time decisions of the long horizon: ordinary load, long answers, a queue of 5,000.

    Whole decisions without a model, the twin's forecasts in them, in CPU time and in wall time.
    Beside a simulated engine, whose own time is not counted.

    hmas bench decision

    hmas bench decision --decisions 100 --json --check
    """
    from evals.checks.bench.controller_bench import run_decision_bench
    from evals.checks.bench.report import decision_sheet
    from evals.report.sheet import show

    with progress_bar() as on_progress:
        results = run_decision_bench(decisions, seed, on_progress)
    show({"results": results}, json_output, decision_sheet(results))
    if check and any(result["cpu_s"]["p99"] >= result["target_s"] for result in results):
        raise typer.Exit(FAILED)


def _check(what: str, names: Iterable[str], known: Collection[str]) -> None:
    from serving.contracts.near_names import choices

    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{what} {name!r}; {choices(name, known)}")

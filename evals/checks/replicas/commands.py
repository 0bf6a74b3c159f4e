"""`hmas eval flood`, `hmas eval routing` and `hmas bench fleet`. Wiring only; imports come late."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from evals.progress import progress_bar
from hmas_agents.commands.options import JsonOption


def flood(
    *,
    case: Annotated[
        list[str] | None, typer.Option(help="beside or apart; repeatable. Default: both.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(help="Policy and rules; repeatable. Default: fair.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="Machine of each replica, of evals/profiles.")
    ] = "h100_llama_8b",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of the requests.")] = 20,
    json_output: JsonOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 where a tick is beyond the bound.")
    ] = False,
) -> None:
    """One tenant floods one of three replicas: shares of each replica against the fleet's.

    In virtual time. Case beside: the tenant has traffic on the other replicas, too, and the others
    have one replica each. Case apart: it has none elsewhere, and the others have traffic on all.

    hmas eval flood

    hmas eval flood --case beside --policy edf+buckets --seeds 5 --json
    """
    from evals.checks.replicas.flood import CASES, FloodOptions, compared, run_floods
    from evals.checks.replicas.report import flood_sheets
    from evals.report.sheet import show
    from hmas_agents.commands.exits import FAILED
    from serving.contracts.near_names import choices

    for name in case or ():
        if name not in CASES:
            raise typer.BadParameter(f"--case: no {name!r}; {choices(name, CASES)}")
    policies = tuple(policy or ("fair",))
    for name in policies:
        _check_policy(name)
    cases = tuple(one for one in CASES if one in (case or CASES))
    with progress_bar() as on_progress:
        results = run_floods(FloodOptions(profile, policies, cases, seeds), on_progress)
    found = compared(results)
    document = {
        "profile": profile, "results": results,
        "compared": [_plain(one) for one in found],
    }  # fmt: skip
    show(document, json_output, *flood_sheets(found))
    if check and not all(one["within_bound"] for one in results):
        raise typer.Exit(FAILED)


def routing(
    suite: Annotated[
        Path, typer.Argument(metavar="SUITE.toml", help="Whose scenarios are routed.")
    ] = Path("evals/suites/sessions.toml"),
    *,
    replicas: Annotated[int, typer.Option(min=1, help="Of the fleet.")] = 4,
    load: Annotated[
        list[float] | None,
        typer.Option(
            min=0.01,
            help="Times what as many stock replicas can serve; repeatable. Default: 0.8, 1.2.",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Policy and rules of all replicas. Default: the start setting.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=2, help="Draws of the requests.")] = 20,
    report: Annotated[
        float, typer.Option(min=0.01, help="Seconds between two reports of a replica.")
    ] = 0.1,
    jobs: Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")] = 0,
    json_output: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for routing.json and routing.svg.")
    ] = None,
) -> None:
    """Compare routers before a few replicas: vLLM's, Ray's two, and the one of H-MAS.

    In virtual time, all on the same requests: least-loaded (vLLM with data parallelism),
    power-of-two and prefix (Ray Serve LLM), prefix tuned on the suite's other half, and deadline.
    vLLM's and Ray's are run with stock vLLM, too.

    hmas eval routing

    hmas eval routing --replicas 8 --load 1 --seeds 5 --json
    """
    from evals.checks.replicas.report import routing_sheets
    from evals.checks.replicas.routing import RoutingOptions, compared, plot, run_routers
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from hmas_agents.config import Config

    setting = policy or Config().control.start_setting
    _check_policy(setting)
    options = RoutingOptions(
        suite, setting, replicas, tuple(load or (0.8, 1.2)), seeds, report, jobs
    )
    with CaseProgress() as progress:
        results = run_routers(options, progress)
    found = compared(results)
    document = {
        "suite": suite.name, "policy": setting, "replicas": replicas, "report_s": report,
        "results": results, "compared": [_plain(one) for one in found],
    }  # fmt: skip
    show(document, json_output, *routing_sheets(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "routing.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (out / "routing.svg").write_text(plot(found), encoding="utf-8")
        typer.echo(f"written: {out}/routing.json, {out}/routing.svg", err=True)


def _plain(one: dict[str, Any]) -> dict[str, Any]:
    return {
        key: asdict(value) if hasattr(value, "mean") else value for key, value in one.items()
    }


def fleet(
    *,
    replicas: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Replicas; repeatable. Default: 1, 3, 10, 30, 100."),
    ] = None,
    suite: Annotated[
        Path, typer.Option(help="Suite whose first scenario each replica gets.")
    ] = Path("evals/suites/azure_hour.toml"),
    seconds: Annotated[float, typer.Option(min=5, help="Of the traffic.")] = 60.0,
    load: Annotated[float, typer.Option(min=0.0001, help="Times the suite's rate, each.")] = 1.0,
    policy: Annotated[str, typer.Option(help="Policy and rules.")] = "fair",
    tick: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    away: Annotated[
        int, typer.Option(min=0, help="Replicas that stop in the middle, for 10 s.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Decides arrivals.")] = 0,
    json_output: JsonOption = False,
    out: Annotated[Path | None, typer.Option(help="Folder for fleet.json and fleet.svg.")] = None,
) -> None:
    """Time replicas, router and controller in virtual time, for more and more replicas.

    The controller merges the replicas' states, divides the tenants' terms and writes a contract
    for each replica; what that costs in CPU time delays what it decides. The network is not in it.

    hmas bench fleet --replicas 1 --replicas 10

    hmas bench fleet --replicas 100 --replicas 1000 --seconds 30

    hmas bench fleet --replicas 10 --away 2
    """
    from evals.checks.replicas.report import scale_sheet
    from evals.checks.replicas.scale import ScaleOptions, plot, run_scale
    from evals.plan.traffic import read_traffic
    from evals.report.sheet import show
    from evals.requests.options import trace_file

    _check_policy(policy)
    counts = tuple(sorted(set(replicas or (1, 3, 10, 30, 100))))
    if away >= counts[0]:
        raise typer.BadParameter(f"--away {away}: of {counts[0]} replicas one must go on")
    options = ScaleOptions(counts, seconds, load, policy, tick, away, seed)
    traffic = read_traffic(
        trace_file(suite, None, None), profile=None, slo_class="", seed=seed,
        warn=lambda line: typer.echo(f"warning: {line}", err=True),
    )  # fmt: skip
    with progress_bar() as on_progress:
        results = run_scale(traffic, options, on_progress)
    document = {
        "traffic": traffic.name, "profile": traffic.profile.name, "seconds": seconds,
        "tick_s": tick, "load": load, "policy": policy, "away": away, "results": results,
    }  # fmt: skip
    show(document, json_output, scale_sheet(results, tick))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "fleet.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (out / "fleet.svg").write_text(plot(results, tick), encoding="utf-8")
        typer.echo(f"written: {out}/fleet.json, {out}/fleet.svg", err=True)


def _check_policy(name: str) -> None:
    from evals.suite.arms import parse_arm
    from serving.policies import parse_policy

    try:
        parse_policy(name.partition("+")[0])
        parse_arm(f"fixed-{name}")
    except ValueError as error:
        raise typer.BadParameter(f"--policy {name}: {error}") from error

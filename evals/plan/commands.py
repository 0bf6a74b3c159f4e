"""`hmas plan`: how many replicas does this traffic need, and what would a policy change?"""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from evals.progress import progress_bar
from evals.requests.options import DrawOption, FormatOption, trace_file
from evals.suite.arms import Arm, parse_arm
from evals.suite.contenders import STOCK
from hmas_agents.commands.options import JsonOption

FEW = 7  # loads of a range


def plan(
    traffic: Annotated[
        Path,
        typer.Argument(
            metavar="SUITE.toml|TRACE",
            help="A suite (its first scenario), a trace, or a folder of ServeGen's clients.",
        ),
    ],
    *,
    load: Annotated[
        str, typer.Option(metavar="RANGE", help="Multiples of its rate: 0.5..2, or 0.5,1,2.")
    ] = "1",
    replicas: Annotated[
        str, typer.Option(metavar="RANGE", help="Powers of two (1..64), or these: 4,5,6,7,8.")
    ] = "1..64",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Beside stock vLLM; repeatable. Default: how the controller starts."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Machine, of evals/profiles. Default: the suite's.")
    ] = None,
    trace_format: FormatOption = None,
    draw: DrawOption = None,
    slo_class: Annotated[
        str,
        typer.Option(help="SLO class of a trace's requests; suites and clients have their own."),
    ] = "conversational",
    meet: Annotated[
        float, typer.Option(min=0, max=1, help="Share of requests that shall meet all SLOs.")
    ] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is drawn.")] = 0,
    json_output: JsonOption = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for plan.json, plan.md and plan.svg.")
    ] = None,
) -> None:
    """How many replicas does this traffic need, and what would a policy change?

    Simulates them in virtual time: each request goes to the least loaded replica, as vLLM's
    data-parallel front end has it, and each replica schedules as vLLM does, or as vLLM with our
    hook and one policy. Loads keep the trace's clock: twice the load is twice as many requests
    in the same hour.

    hmas plan evals/suites/steady.toml --load 0.5..2

    hmas plan my_trace.csv --replicas 4,5,6 --slo-class interactive --meet 0.99

    hmas plan my_trace.jsonl --policy edf+slack+triage --policy sjf --out var/plan

    hmas plan my_trace.csv --load 100 --replicas 64..1024 --json

    hmas plan servegen/deepseek-r1 --draw hours=9..17 --replicas 2..8
    """
    from evals.plan.plan import PlanOptions, needed, plot, run_plan, sentences, sheets
    from evals.plan.traffic import read_traffic
    from evals.report.sheet import markdown, show
    from hmas_agents.config import Config

    names = [STOCK, *(policy or [Config().control.start_setting])]
    options = PlanOptions(
        _loads(load), _replicas(replicas), tuple(_arm(name) for name in dict.fromkeys(names)),
        meet, seed,
    )  # fmt: skip
    planned = read_traffic(
        trace_file(traffic, trace_format, draw), profile=profile, slo_class=slo_class, seed=seed,
        warn=lambda line: typer.echo(f"warning: {line}", err=True),
    )  # fmt: skip
    with progress_bar() as on_progress:
        results = run_plan(planned, options, on_progress)
    document = json.dumps(
        {
            "traffic": planned.name, "profile": planned.profile.name, "seed": seed, "meet": meet,
            "needed": needed(results, meet), "results": results,
        },
        indent=1,
    )  # fmt: skip
    tables, said = sheets(results, meet), sentences(results, meet)
    show(document, json_output, *tables, *said)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "plan.json").write_text(document + "\n", encoding="utf-8")
        (out / "plan.svg").write_text(plot(results, meet), encoding="utf-8")
        text = ["\n".join(said) + "\n", "![attainment](plan.svg)\n", *map(markdown, tables)]
        (out / "plan.md").write_text("\n".join(text), encoding="utf-8")
        typer.echo(f"written: {out}/plan.json, plan.md, plan.svg", err=True)


def _arm(name: str) -> Arm:
    from serving.policies import parse_policy

    if name == STOCK:
        return parse_arm(name)
    try:
        parse_policy(name.partition("+")[0])
        return parse_arm(f"fixed-{name}")
    except ValueError as error:
        raise typer.BadParameter(f"--policy {name}: {error}") from error


def _loads(text: str) -> tuple[float, ...]:
    numbers = _numbers("--load", text, 1e-3, 1e5)
    if ".." not in text:
        return tuple(numbers)
    first, last = numbers
    return tuple(round(first + (last - first) * k / (FEW - 1), 4) for k in range(FEW))


def _replicas(text: str) -> tuple[int, ...]:
    numbers = _numbers("--replicas", text, 1, 1e5)
    if fractions := [number for number in numbers if number != int(number)]:
        raise typer.BadParameter(f"--replicas {text}: {fractions[0]:g} is not a whole number")
    if ".." not in text:
        return tuple(map(int, numbers))
    first, last = map(int, numbers)
    powers = [2**k for k in range(math.ceil(math.log2(first)), math.floor(math.log2(last)) + 1)]
    return tuple(sorted({first, *powers, last}))


def _numbers(option: str, text: str, least: float, most: float) -> list[float]:
    """The numbers of `0.5,1,2`, or the two of `0.5..2`."""
    is_range = ".." in text
    try:
        numbers = [float(word) for word in text.split(".." if is_range else ",")]
    except ValueError:
        numbers = []
    if not numbers or (is_range and len(numbers) != 2):
        raise typer.BadParameter(f"{option} {text}: expected FIRST..LAST, or numbers with commas")
    for number in numbers:
        if not least <= number <= most:
            raise typer.BadParameter(f"{option} {text}: {number:g} is not in {least:g}..{most:g}")
    if any(a >= b for a, b in pairwise(numbers)):
        raise typer.BadParameter(f"{option} {text}: numbers must grow from left to right")
    return numbers

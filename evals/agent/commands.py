"""`hmas eval agent` and `hostile`: does the policy agent choose well? Scores, case sets, labels.

Wiring only. Heavy imports stay inside the functions that need them.
"""

from pathlib import Path
from typing import Annotated

import typer

from evals.agent.model_double import Kind
from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import (
    ConfigOption,
    JsonOption,
    ModelOption,
    ModelUrlOption,
    read_config,
)

SMALL_SET = Path("evals/cases/small.jsonl.gz")
SUITE = Path("evals/cases/scenes.toml")

app = typer.Typer()

CassetteOption = Annotated[
    Path | None, typer.Option(help="File of replies: with --model-url recorded, without it played.")
]
JobsOption = Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core.")]


@app.callback(invoke_without_command=True)
def agent(
    context: typer.Context,
    *,
    cases: Annotated[
        Path, typer.Option(metavar="FILE", help="Case file; `build` makes one.")
    ] = SMALL_SET,
    model_url: ModelUrlOption = None,
    model: ModelOption = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Label or version to ask with. Repeatable; default: current."),
    ] = None,
    rotations: Annotated[
        int, typer.Option(min=1, help="Orders of the options that each case is asked in.")
    ] = 3,
    at_once: Annotated[
        int,
        typer.Option(min=1, help="Questions asked at a time; the latency is then under that load."),
    ] = 1,
    cassette: CassetteOption = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Exit 1 if a mean regret is above it; see above.")
    ] = 1.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many cases of each split.")
    ] = None,
    config: ConfigOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For agent.json, agent.md, agent.svg.")
    ] = None,
    jobs: JobsOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Does the policy agent choose well? Score it on cases, beside rules, chance and the twin.

    Regret is the attainment lost against the best policy of each case, as the twin's
    simulations label it. Development and held-out scenarios are shown apart.

    hmas eval agent

    hmas eval agent --cases var/agent/cases.jsonl.gz --out var/agent/report

    hmas eval agent --model-url http://gpu-7:8000/v1 --prompt current --prompt 3

    hmas eval agent --cassette replies.jsonl --model smollm2 --threshold 0.1

    hmas eval agent build --help

    --threshold applies to every model asked, or to the rules where none is; on the held-out
    cases, or on all where none are held out. Exit code 1: above the threshold.
    """
    if context.invoked_subcommand is not None:
        return
    from evals.agent.eval_agent import AgentEval, document, run_agent_eval, sheets, write_files
    from evals.progress import CaseProgress
    from evals.report.sheet import show

    asks = model_url is not None or cassette is not None
    if prompt and not asks:
        raise typer.BadParameter("--prompt asks a model: give --model-url or --cassette")
    named = {"base_url": model_url, "name": model}
    given = {key: value for key, value in named.items() if value is not None}
    asked = read_config(config).model.model_copy(update=given)
    request = AgentEval(
        cases=cases, model=asked if asks else None,
        prompts=tuple(("policy", each) for each in prompt or ["current"]), rotations=rotations,
        cassette=cassette, record=model_url is not None, jobs=jobs, limit=limit, at_once=at_once,
    )  # fmt: skip
    with CaseProgress() as progress:
        report = run_agent_eval(request, progress)
    show(document(report, cases), json_output, *sheets(report))
    if out is not None:
        write_files(report, cases, out)
        typer.echo(f"written: {out}/agent.json, agent.md, agent.svg", err=True)
    worse = [each for each in report.gated() if each.regret.mean > threshold]
    for each in worse:
        typer.echo(
            f"{each.contender}: regret {each.regret.mean:.3f} on the {each.split} cases is above "
            f"{threshold:g}",
            err=True,
        )
    if worse:
        raise typer.Exit(FAILED)


@app.command("build")
def build(
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Case file; .gz is compressed.")],
    cases: Annotated[int, typer.Option(min=1, help="How many.")] = 200,
    suite: Annotated[Path, typer.Option(metavar="SUITE.toml", help="Where from.")] = SUITE,
    ledger: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Its long decisions become cases too. Repeatable."),
    ] = None,
    jobs: JobsOption = 0,
) -> None:
    """Make a case set: situations from simulated runs (and ledgers), labelled by simulation.

    The default suite is synthetic, so its cases may be passed on; a suite with a public trace
    makes cases that contain parts of that trace. Deterministic by the suite and its seeds.

    hmas eval agent build --out var/agent/cases.jsonl.gz

    hmas eval agent build --out var/agent/mine.jsonl.gz --ledger var/ledger.sqlite

    hmas eval agent build --out drift.jsonl.gz --suite my_cases.toml --cases 50
    """
    from evals.agent.build import build as build_cases
    from evals.agent.scoring import balance
    from evals.progress import CaseProgress

    with CaseProgress() as progress:
        built = build_cases(suite, cases, out, ledger or (), jobs, progress)
    for split, best in balance(built).items():
        counted = ", ".join(f"{name} {number}" for name, number in best.items())
        typer.echo(f"{split}: best policy: {counted}")
    if len(built) < cases:
        typer.echo(f"warning: {cases} cases asked, the runs have {len(built)}", err=True)
    typer.echo(f"{out}: {len(built)} cases")


def hostile(
    kind: Annotated[Kind, typer.Argument(help="What it answers.")],
    *,
    policy: Annotated[str, typer.Option(help="Policy to propose, with parameters.")] = "fcfs",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8399,
) -> None:
    """A model out to harm, for a controller or an eval to be pointed at, until Ctrl-C.

    worst: always the same proposal, with confidence 1. garbage: nothing that can be read.
    injection: proposals dressed up to be believed, or run.

    hmas eval hostile worst --policy fcfs --port 8399

    hmas eval run my_suite.toml --arms hmas --model-url http://127.0.0.1:8399/v1
    """
    import threading

    from evals.agent.model_double import replies, serving
    from serving.policies import parse_policy

    try:
        name, params = parse_policy(policy)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from error
    try:
        with serving(replies(kind, name, params), port=port) as model:
            typer.echo(f"{kind}, proposing {policy}, at {model.url}", err=True)
            try:
                threading.Event().wait()
            finally:
                typer.echo(f"asked {len(model.asked)} times", err=True)
    except OSError as error:
        raise typer.BadParameter(
            f"port {port} is taken ({error.strerror}): give another", param_hint="--port"
        ) from error

"""`hmas soak`: does the engine stay whole under random traffic and random decisions?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.exits import FAILED
from hmas_agents.commands.options import JsonOption


def soak(
    minutes: Annotated[
        float, typer.Option(min=0.1, help="How long clients send; the end takes a little more.")
    ] = 20.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests per second, on average.")] = 2.5,
    seed: Annotated[int, typer.Option(min=0, help="Decides requests and decisions.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.")] = 8000,
    model: Annotated[
        str, typer.Option(help="Model to serve; default: SmolLM2-135M, with two LoRA adapters.")
    ] = "",
    api_servers: Annotated[
        int, typer.Option(min=1, help="API servers before the engine; /metrics must add up.")
    ] = 1,
    out: Annotated[Path, typer.Option(help="Folder for soak.json and the server's log.")] = Path(
        "var/soak"
    ),
    json_output: JsonOption = False,
) -> None:
    """Soak a real vLLM: random requests, aborts, bad requests, a random decision every second.

    Among the requests: grammars, stop strings, two answers at once, LoRA adapters (two, with one
    slot), shared prefixes.

    Starts the server itself and stops it. Exit code 1 when the books do not balance, a
    guarantee broke, a policy raised, or the server's log has an error.

    hmas soak --minutes 20

    hmas soak --minutes 2 --rate 4 --seed 7 --api-servers 2 --json
    """
    from evals.checks.soak.run import SoakOptions, soak_on
    from evals.checks.soak.traffic import ADAPTERS, write_adapters
    from evals.live.own_server import own_server
    from evals.progress import CaseProgress
    from evals.report.sheet import show
    from evals.suite.suite import SMALL_MACHINE
    from serving.contracts.settings import EngineSettings
    from serving.launch.model import SMOLLM2

    arguments, adapters = list(SMALL_MACHINE), () if model else ADAPTERS
    if api_servers > 1:
        arguments += ["--api-server-count", str(api_servers)]
    if adapters:  # the shape of another model is not known here
        arguments += write_adapters(SMOLLM2, out)
    # Small sizes, so that a soak of minutes goes round the journal and past the tenants' bound.
    settings = EngineSettings(slo_scale=4.0, max_tenants=32, journal_size=2000)
    with (
        CaseProgress() as progress,
        own_server(
            settings, out, progress.note, port=port, model=model, arguments=arguments
        ) as server,
    ):
        report = soak_on(server, SoakOptions(minutes, rate, seed), progress, adapters)
    document = report.as_json()
    (out / "soak.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    show(document, json_output, *report.sheets(), *report.lines())
    if report.problems:
        raise typer.Exit(FAILED)

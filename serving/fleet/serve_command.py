"""How is a fleet on Ray Serve started? `hmas fleet serve CONFIG`, by Ray's own `serve run`."""

import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
import yaml

from serving.contracts.settings import load_contract
from serving.engines.live import DEFAULT_TOKEN_FILE
from serving.fleet.addresses import RAY
from serving.fleet.ray_app import RayMissing, hooked_apps, read_config, with_hook
from serving.launch.launcher import write_token

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def fleet() -> None:
    """Start vLLM with H-MAS on many replicas, on Ray Serve."""


@app.command()
def serve(
    serve_config: Annotated[
        Path,
        typer.Argument(
            help="A Serve config, as for `serve run`: applications of "
            "`ray.serve.llm:build_openai_app` with their LLM configs.",
            metavar="CONFIG",
        ),
    ],
    *,
    contract: Annotated[
        Path | None,
        typer.Option(help="Tenants and SLO classes, as of `hmas serve`.", metavar="FILE"),
    ] = None,
    route_by_deadline: Annotated[
        bool,
        typer.Option(
            "--route-by-deadline",
            help="Send a request where it is in time and the cache holds most of it. Else Ray "
            "routes as the config says.",
        ),
    ] = False,
    token_file: Annotated[
        Path, typer.Option(help="Where the token for controllers is written.")
    ] = DEFAULT_TOKEN_FILE,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write the config with H-MAS in it here and start nothing: for `serve deploy` "
            "or KubeRay. The file holds the token.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Start Ray Serve LLM with the H-MAS scheduler in every replica, until Ctrl-C.

    The config stays as Ray knows it: engine_kwargs, replicas, autoscaling and all else pass
    through. Settings of H-MAS go under "hmas" of additional_config in engine_kwargs. Ray Serve
    starts in the cluster of RAY_ADDRESS, else in the one on this machine, else in a new one.

    Try:

      hmas fleet serve serve.yaml --contract contract.toml

      hmas fleet serve serve.yaml --route-by-deadline

      hmas run --url ray://APP        beside it, in the same cluster
    """
    if write is None and find_spec("ray") is None:
        raise RayMissing
    terms = None if contract is None else load_contract(contract).model_dump(mode="json")
    hooked = with_hook(
        read_config(serve_config), write_token(token_file), terms, route_by_deadline
    )
    path = write or token_file.with_name("serve.yaml")
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(yaml.safe_dump(hooked, sort_keys=False))
    typer.echo(f"token: {token_file}, config with H-MAS: {path}", err=True)
    for name in hooked_apps(hooked):
        typer.echo(f"beside it: hmas run --url {RAY}{name}", err=True)
    if write is None:
        command = [sys.executable, "-m", "ray.serve.scripts", "run", str(path)]
        typer.echo(shlex.join(command), err=True)
        os.execv(sys.executable, command)

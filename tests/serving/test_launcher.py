"""Is the command that starts vLLM the right one, and are its failures clear?"""

import json
import socket
from itertools import pairwise
from pkgutil import resolve_name

import pytest
import typer
from typer.testing import CliRunner

from serving import cpu_precision
from serving.launcher import (
    REPO,
    ServerError,
    running_server,
    serve_command,
    server_command,
    server_environment,
    write_token,
)
from serving.plugin.gateway import GatewayMiddleware
from serving.plugin.shedding import SheddingMiddleware
from serving.settings import EngineSettings, read_settings


def test_the_hook_is_named_before_the_callers_arguments():
    command = server_command(EngineSettings(slo_scale=2.0), ["--model", "m"], hook=True)
    assert command[-2:] == ["--model", "m"]
    assert command[command.index("--scheduler-cls") + 1] == "serving.scheduler.hmas_scheduler"
    extra = json.loads(command[command.index("--additional-config") + 1])
    assert extra == {"hmas": {"slo_scale": 2.0}}


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("flags\t\t: fpu avx avx2 fma", ["--dtype", "float32"]),
        ("flags\t\t: fpu avx avx2 fma avx512f avx512_bf16", []),
        ("Features\t: fp asimd bf16", []),  # not x86
    ],
)
def test_a_cpu_that_emulates_bfloat16_computes_in_float32(tmp_path, monkeypatch, flags, arguments):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\nbugs\t\t: none\n")
    monkeypatch.setattr(cpu_precision, "is_cpu_build", lambda: True)
    assert cpu_precision.precision_arguments(cpuinfo) == arguments
    assert cpu_precision.precision_arguments(tmp_path / "missing") == []
    monkeypatch.setattr(cpu_precision, "is_cpu_build", lambda: False)  # a GPU computes as it likes
    assert cpu_precision.precision_arguments(cpuinfo) == []


def test_a_gateway_brings_its_middleware_and_the_hook_the_same_settings():
    settings = EngineSettings(gateway="token", trust_client_tenant=True)
    command = server_command(settings, ["--model", "m"], hook=True)
    assert command[command.index("--middleware") + 1] == "serving.plugin.gateway.GatewayMiddleware"
    assert resolve_name(command[command.index("--middleware") + 1]) is GatewayMiddleware
    extra = json.loads(command[command.index("--additional-config") + 1])
    assert read_settings(extra) == settings
    assert "--middleware" not in server_command(EngineSettings(), [], hook=True)
    assert "--middleware" not in server_command(settings, [], hook=False)


def served(monkeypatch, folder, *options: str) -> tuple[EngineSettings, dict[str, str]]:
    """What `hmas serve` would start: the settings and the environment."""
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _, *call: started.append(call))
    app = typer.Typer()
    app.command(context_settings={"allow_extra_args": True})(serve_command)
    options = ("--token-file", str(folder / "hmas.token"), *options)
    result = CliRunner().invoke(app, options)
    if result.exit_code:
        raise ValueError(result.output)
    ((command, environment),) = started
    extra = json.loads(command[command.index("--additional-config") + 1])
    return read_settings(extra), environment


def test_serve_behind_a_gateway(monkeypatch, tmp_path):
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", "of-the-gateway")
    settings, environment = served(
        monkeypatch, tmp_path, "--gateway", "token", "--objective", "premium=interactive"
    )
    assert settings.gateway_objectives == {"premium": "interactive"}
    assert not settings.believes_clients
    assert environment["HMAS_GATEWAY_TOKEN"] == "of-the-gateway"
    monkeypatch.delenv("HMAS_GATEWAY_TOKEN")
    _, environment = served(monkeypatch, tmp_path, "--gateway", "token")
    assert environment["HMAS_GATEWAY_TOKEN"] == (tmp_path / "gateway.token").read_text().strip()
    settings, environment = served(monkeypatch, tmp_path)
    assert settings.believes_clients
    assert "HMAS_GATEWAY_TOKEN" not in environment


def test_serve_with_classes_that_may_be_refused(monkeypatch, tmp_path):
    settings, _ = served(monkeypatch, tmp_path, "--sheddable", "batch, best_effort")
    assert settings.sheddable == ("batch", "best_effort")
    assert served(monkeypatch, tmp_path)[0].sheddable == ()
    with pytest.raises(ValueError, match=r"cheap"):
        served(monkeypatch, tmp_path, "--sheddable", "cheap")


def test_shedding_brings_its_middleware_inside_the_gateways():
    settings = EngineSettings(sheddable=("batch",), gateway="token")
    command = server_command(settings, [], hook=True)
    named = [value for flag, value in pairwise(command) if flag == "--middleware"]
    assert [resolve_name(name) for name in named] == [SheddingMiddleware, GatewayMiddleware]


@pytest.mark.parametrize(
    ("objective", "reason"), [("premium", "NAME=SLO_CLASS"), ("premium=gold", "unknown SLO")]
)
def test_an_objective_that_leads_nowhere_is_refused(objective, reason, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(ValueError, match=reason):
        served(monkeypatch, tmp_path, "--objective", objective)


def test_serve_keeps_learned_models_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert served(monkeypatch, tmp_path)[0].model_file == str(tmp_path / "var/perception.json")
    assert served(monkeypatch, tmp_path, "--model-file", "")[0].model_file is None
    assert EngineSettings().model_file is None


def test_a_stock_server_gets_neither_hook_nor_plugins(monkeypatch):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    assert "--scheduler-cls" not in server_command(EngineSettings(), [], hook=False)
    environment = server_environment("t", hook=False)
    assert "VLLM_PLUGINS" not in environment
    assert "HMAS_TOKEN" not in environment


def test_the_environment_keeps_what_the_user_has_set(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "mine,hmas")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = server_environment("t", hook=True)
    assert environment["VLLM_PLUGINS"] == "mine,hmas,hmas_engine"
    assert environment["PYTHONPATH"].split(":") == [str(REPO), "/elsewhere"]
    assert environment["HMAS_TOKEN"] == "t"


def test_the_token_is_readable_by_its_owner_only(monkeypatch, tmp_path):
    monkeypatch.delenv("HMAS_TOKEN", raising=False)
    path = tmp_path / "sub" / "token"
    token = write_token(path)
    assert path.read_text() == token + "\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert write_token(path) != token


def test_a_taken_port_is_a_clear_error(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ServerError, match=f"port {port} is taken"),
            running_server(EngineSettings(), [], port=port, token="t", log=tmp_path / "log"),
        ):
            pass


def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--no-such-option-of-vllm"]
    with (
        pytest.raises(ServerError, match="no-such-option-of-vllm"),
        running_server(EngineSettings(), arguments, port=port, token="t", log=tmp_path / "log"),
    ):
        pass

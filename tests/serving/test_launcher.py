"""Is the command that starts vLLM the right one, and are its failures clear?"""

import json
import socket

import pytest

from serving.launcher import (
    REPO,
    ServerError,
    running_server,
    server_command,
    server_environment,
    write_token,
)
from serving.settings import EngineSettings


def test_the_hook_is_named_before_the_callers_arguments():
    command = server_command(EngineSettings(slo_scale=2.0), ["--model", "m"], hook=True)
    assert command[-2:] == ["--model", "m"]
    assert command[command.index("--scheduler-cls") + 1] == "serving.scheduler.HMASScheduler"
    extra = json.loads(command[command.index("--additional-config") + 1])
    assert extra == {"hmas": {"slo_scale": 2.0}}


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

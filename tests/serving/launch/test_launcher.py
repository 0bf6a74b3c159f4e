"""Is the command that starts vLLM the right one, and are its failures clear?"""

import argparse
import json
import socket
from dataclasses import dataclass
from pkgutil import resolve_name

import pytest
import typer
from typer.testing import CliRunner

from serving.contracts import Contract, ContractError, TenantTerms
from serving.contracts.settings import EngineSettings, load_contract, read_settings
from serving.launch import launcher, vllm_cli
from serving.launch.launcher import (
    ServerError,
    running_server,
    serve_command,
    server_command,
    server_environment,
    write_token,
)
from serving.launch.model import SMOLLM2, TAUGHT
from serving.launch.vllm_arguments import REPO, Given
from serving.plugin.gateway import GatewayMiddleware

TWO_GATEWAYS = r"hmas.gateway is 'off'.*'token'"


def parsed(command: list[str]) -> argparse.Namespace:
    """What vLLM's own parser makes of a command."""
    try:
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
    except ImportError:  # up to vLLM 0.31
        from vllm.entrypoints.openai.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    assert command[1:4] == ["-P", "-m", "serving.launch.vllm_cli"]
    parser = FlexibleArgumentParser()
    make_arg_parser(parser.add_subparsers(dest="command").add_parser("serve"))
    args: argparse.Namespace = parser.parse_args(command[4:])
    return args


def test_vllm_serves_the_model_with_the_hook_and_the_callers_arguments():
    given = Given(rest=["--port", "8001", "--api-server-count", "2", "--headless"])
    args = parsed(server_command(EngineSettings(slo_scale=2.0), "m", given))
    assert args.model_tag == "m"
    assert args.scheduler_cls == "serving.scheduler.hmas_scheduler"
    assert args.additional_config == {"hmas": {"slo_scale": 2.0}}
    assert (args.port, args.api_server_count, args.headless) == (8001, 2, True)


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
    monkeypatch.setattr(vllm_cli, "is_cpu_build", lambda: True)
    assert vllm_cli.precision_arguments(cpuinfo) == arguments
    assert vllm_cli.precision_arguments(tmp_path / "missing") == []
    monkeypatch.setattr(vllm_cli, "is_cpu_build", lambda: False)  # a GPU computes as it likes
    assert vllm_cli.precision_arguments(cpuinfo) == []


def test_a_gateway_brings_its_middleware_and_the_hook_the_same_settings():
    settings = EngineSettings(gateway="token", contract=Contract(believe_clients=True))
    args = parsed(server_command(settings, "m", Given()))
    assert [resolve_name(name) for name in args.middleware] == [GatewayMiddleware]
    assert read_settings(args.additional_config) == settings
    assert "--middleware" not in server_command(EngineSettings(), "m", Given())
    assert "--middleware" not in server_command(settings, "m", Given(), hook=False)


@dataclass
class Served:
    """What `hmas serve` would start."""

    command: list[str]
    environment: dict[str, str]
    said: str

    @property
    def args(self) -> argparse.Namespace:
        return parsed(self.command)

    @property
    def settings(self) -> EngineSettings:
        return read_settings(self.args.additional_config)


def served(monkeypatch, folder, *options: str) -> Served:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _, *call: started.append(call))
    app = typer.Typer()
    settings = {"allow_extra_args": True, "ignore_unknown_options": True}  # as in hmas_agents.cli
    app.command(context_settings=settings)(serve_command)
    result = CliRunner().invoke(app, (*options, "--token-file", str(folder / "hmas.token")))
    if result.exception:
        raise result.exception
    return Served(*started[0], result.output)


@pytest.mark.parametrize(
    "options", [("m",), ("--model", "m"), ("m", "--model", "m"), ("--slo-scale", "2", "m")], ids=str
)
def test_serve_serves_the_model_that_is_named(monkeypatch, tmp_path, options):
    found = served(monkeypatch, tmp_path, *options, "--max-num-seqs", "128")
    assert (found.args.model_tag, found.args.max_num_seqs) == ("m", 128)
    assert "SmolLM2" not in found.said


def test_a_scheduler_that_is_made_of_the_hook_may_take_its_place(monkeypatch, tmp_path):
    log = "evals.checks.fidelity.step_log.step_log_scheduler"
    assert served(monkeypatch, tmp_path, "m", "--scheduler-cls", log).args.scheduler_cls == log


def test_a_model_in_another_place_is_an_error_and_no_other_model_is_served(monkeypatch, tmp_path):
    monkeypatch.setattr(launcher, "is_complete", lambda _: True)
    for options in (["--port", "8001", "m"], ["--served-model-name", "a", "m"]):
        with pytest.raises(ServerError, match="'m' comes late: name a model right after"):
            served(monkeypatch, tmp_path, *options)
    flag = served(monkeypatch, tmp_path, "--enforce-eager", "m")
    with pytest.raises(SystemExit):  # vLLM: unrecognized arguments
        parsed(flag.command)
    assert served(monkeypatch, tmp_path, "m", "--served-model-name", "a", "b").args.model_tag == "m"


def test_two_models_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ServerError, match="two models, m and --model n"):
        served(monkeypatch, tmp_path, "m", "--model", "n")


@pytest.mark.parametrize("embedded", [SMOLLM2, TAUGHT])
def test_without_a_model_the_embedded_one_is_served_and_named(embedded, monkeypatch, tmp_path):
    monkeypatch.setattr("serving.launch.model.is_complete", lambda model: model == embedded)
    monkeypatch.setattr(launcher, "is_complete", lambda model: model == embedded)
    found = served(monkeypatch, tmp_path, "--port", "8001")
    assert found.args.model_tag == str(embedded)
    assert "no model right after `hmas serve`: serving the embedded SmolLM2" in found.said
    monkeypatch.setattr(launcher, "is_complete", lambda _: False)
    with pytest.raises(ServerError, match="by `make model`"):
        served(monkeypatch, tmp_path)


def test_a_config_file_may_name_the_model_and_more_of_the_additional_config(monkeypatch, tmp_path):
    file = tmp_path / "vllm.yaml"
    file.write_text("model: from-file\nport: 8001\nadditional-config:\n  x: 1\n")
    args = served(monkeypatch, tmp_path, "--gateway", "always", "--config", str(file)).args
    assert (args.model_tag or args.model, args.port) == ("from-file", 8001)
    assert args.additional_config["x"] == 1
    assert args.additional_config["hmas"]["gateway"] == "always"


@pytest.mark.parametrize(
    "form",
    [
        ("--additional-config", '{"x": 1}'),
        ('--additional-config={"x": 1}',),
        ("--additional_config", '{"x": 1}'),
        ("--additional-conf", '{"x": 1}'),
        ("--additional-config.x", "1"),
        ("--additional_config.x=1",),
    ],
    ids=str,
)
def test_the_users_additional_config_and_ours_both_reach_vllm(monkeypatch, tmp_path, form):
    """Before, the user's replaced ours: a gateway's trust, weights and floors vanished."""
    found = served(monkeypatch, tmp_path, "m", "--gateway", "token", *form, "--port", "8001")
    assert found.args.additional_config["x"] == 1
    assert found.args.port == 8001
    assert found.settings.gateway == "token"
    meant = json.loads(found.environment["HMAS_SETTINGS"])
    assert read_settings({"hmas": meant}) == found.settings


def test_settings_without_an_option_go_under_hmas(monkeypatch, tmp_path):
    text = '{"hmas": {"gateway_objectives": {"a": "batch"}, "model_file": null}}'
    found = served(monkeypatch, tmp_path, "m", "--slo-scale", "2", "--additional-config", text)
    assert found.settings == EngineSettings(gateway_objectives={"a": "batch"}, slo_scale=2)
    dotted = [
        "--additional-config.hmas.contract.tenants.acme.weight", "3", "--additional-config.x", "1",
        "--additional-config.hmas.contract.tenants.acme.floor=0.2",
        "--additional-config.hmas.contract.tenants.acme.classes+", "batch,document",
    ]  # fmt: skip
    found = served(monkeypatch, tmp_path, "m", *dotted)
    acme = TenantTerms(weight=3, floor=0.2, classes=("batch", "document"))
    assert found.settings.contract == Contract(tenants={"acme": acme})
    assert found.args.additional_config["x"] == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--additional-config", '{"hmas": {"gateway": "off"}}'], TWO_GATEWAYS),
        (["--additional-config.hmas.gateway", "off"], TWO_GATEWAYS),
        (["--additional-config", '{"x": 1}', "--additional-config={\"x\": 2}"], "x is given twice"),
        (["--additional-config", '{"x": 1}', "--additional-config.y", "2"], "drop the JSON"),
        (["--additional-config", "{x}"], "is not JSON"),
        (["--additional-config", "[]"], "must be a JSON object"),
        (["--additional-config", '{"hmas": 7}'], "hmas must be an object"),
        (["--additional-config", '{"hmas": {"gatewey": 7}}'], "hmas.gatewey"),
        (["--additional-config"], "needs a value"),
        (["--scheduler-cls", "mine.Own"], "mine.Own: `hmas serve` runs vLLM with its own"),
        (["--scheduler_cls=mine.Own"], "mine.Own: `hmas serve` runs vLLM with its own"),
        (["--config", "missing.yaml"], "missing.yaml: cannot be read"),
        (["--headless"], "--headless needs HMAS_TOKEN"),
        (["--grpc"], "--grpc has no HTTP server"),
    ],
)
def test_what_cannot_be_put_in_force_is_refused(monkeypatch, tmp_path, options, reason):
    monkeypatch.delenv("HMAS_TOKEN", raising=False)
    with pytest.raises((ContractError, ServerError), match=reason):
        served(monkeypatch, tmp_path, "m", "--gateway", "token", *options)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("scheduler-cls: mine.Own", "scheduler-cls mine.Own"),
        ("additional-config.hmas.gateway: 'off'", "as a mapping"),
        ("additional_config: {hmas: {gateway: 'off'}}", TWO_GATEWAYS),
        ("- a list", "must be a mapping"),
    ],
)
def test_what_a_config_file_would_replace_is_refused(monkeypatch, tmp_path, text, reason):
    file = tmp_path / "vllm.yaml"
    file.write_text(text)
    with pytest.raises(ContractError, match=reason):
        served(monkeypatch, tmp_path, "m", "--gateway", "token", "--config", str(file))


def test_a_frontend_without_our_plugins_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(ServerError, match="Rust frontend loads no Python plugins"):
        served(monkeypatch, tmp_path, "m")


def test_serve_behind_a_gateway(monkeypatch, tmp_path):
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", "of-the-gateway")
    found = served(
        monkeypatch, tmp_path, "m", "--gateway", "token", "--objective", "premium=interactive"
    )
    assert found.settings.gateway_objectives == {"premium": "interactive"}
    assert found.environment["HMAS_GATEWAY_TOKEN"] == "of-the-gateway"
    monkeypatch.delenv("HMAS_GATEWAY_TOKEN")
    text = '{"hmas": {"gateway": "token"}}'
    for options in (["--gateway", "token"], ["--additional-config", text]):
        found = served(monkeypatch, tmp_path, "m", *options)
        token = found.environment["HMAS_GATEWAY_TOKEN"]
        assert token == (tmp_path / "gateway.token").read_text().strip()
    found = served(monkeypatch, tmp_path, "m")
    assert "HMAS_GATEWAY_TOKEN" not in found.environment


def test_serve_takes_the_contract_of_a_file_or_says_what_is_wrong_with_it(monkeypatch, tmp_path):
    file = tmp_path / "contract.toml"
    file.write_text("[tenants.acme]\nweight = 4\n[classes.batch]\nsheddable = true\n")
    found = served(monkeypatch, tmp_path, "m", "--contract", str(file))
    assert found.settings.contract == load_contract(file)
    assert found.settings.contract.sheddable == ("batch",)
    assert served(monkeypatch, tmp_path, "m").settings.contract == Contract()
    file.write_text("[tenants.acme]\nwieght = 4\n")
    with pytest.raises(ContractError, match=r"contract.toml:2: tenants.acme.wieght"):
        served(monkeypatch, tmp_path, "m", "--contract", str(file))


@pytest.mark.parametrize(
    ("objective", "reason"), [("premium", "NAME=SLO_CLASS"), ("premium=gold", "unknown SLO")]
)
def test_an_objective_that_leads_nowhere_is_refused(objective, reason, monkeypatch, tmp_path):
    with pytest.raises(ContractError, match=reason):
        served(monkeypatch, tmp_path, "m", "--objective", objective)


def test_serve_keeps_learned_models_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    kept = served(monkeypatch, tmp_path, "m").settings.model_file
    assert kept == str(tmp_path / "var/perception.json")
    assert served(monkeypatch, tmp_path, "m", "--model-file", "").settings.model_file is None
    assert EngineSettings().model_file is None


def test_a_stock_server_gets_neither_hook_nor_plugins(monkeypatch):
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    assert "--scheduler-cls" not in server_command(EngineSettings(), "m", Given(), hook=False)
    environment = server_environment(EngineSettings(), "t", hook=False)
    assert "VLLM_PLUGINS" not in environment
    assert not {"HMAS_TOKEN", "HMAS_SETTINGS"} & environment.keys()


def test_the_environment_keeps_what_the_user_has_set(monkeypatch):
    monkeypatch.setenv("VLLM_PLUGINS", "mine,hmas")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = server_environment(EngineSettings(), "t", hook=True)
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
            running_server(EngineSettings(), "m", [], port=port, token="t", log=tmp_path / "log"),
        ):
            pass


def test_a_server_that_dies_shows_the_end_of_its_log(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments, log = ["--no-such-option-of-vllm"], tmp_path / "log"
    with (
        pytest.raises(ServerError, match="no-such-option-of-vllm"),
        running_server(EngineSettings(), "m", arguments, port=port, token="t", log=log),
    ):
        pass

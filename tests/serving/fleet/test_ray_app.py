"""Does a Serve config keep all that is the user's, get all that is ours, and fail loudly?"""

import copy
import json
import stat

import pytest
import yaml

from hmas_agents import cli
from serving.contracts import ContractError
from serving.contracts.in_force import MEANT
from serving.contracts.settings import read_settings
from serving.fleet import serve_command
from serving.fleet.ray_app import (
    BUILDER,
    HINT_PERIOD_S,
    ROUTER_CLASS,
    SERVER_CLASS,
    hooked_apps,
    with_hook,
)
from serving.launch.vllm_arguments import HOOK, REPO

CONTRACT = {"tenants": {"acme": {"weight": 2.0}}}
QUOTA = {"tenants": {"acme": {"max_waiting": 3}}}
KEY = {"tenants": {"acme": {"api_key_hashes": ["sha256:" + "0" * 64]}}}
CLASSES = {"tenants": {"acme": {"classes": ["batch"]}}}


def serve_config(**llm_config):
    model = {
        "model_loading_config": {"model_id": "smol", "model_source": "var/models/smollm2-135m"},
        "deployment_config": {"autoscaling_config": {"min_replicas": 1, "max_replicas": 4}},
        "engine_kwargs": {"max_model_len": 2048, "additional_config": {"mine": 1}},
        "runtime_env": {"env_vars": {"VLLM_PLUGINS": "lora_cache", "HF_HUB_OFFLINE": "1"}},
    }
    app = {
        "name": "llm", "route_prefix": "/", "import_path": BUILDER,
        "args": {"llm_configs": [model | llm_config], "ingress_deployment_config": {"a": 1}},
    }  # fmt: skip
    other = {"name": "shop", "import_path": "shop:app", "route_prefix": "/shop"}
    return {"http_options": {"port": 8001}, "applications": [app, other]}


def hooked(config, contract=None):
    return with_hook(config, "secret", contract)["applications"][0]["args"]["llm_configs"][0]


def test_what_is_the_users_passes_through_and_the_config_given_stays_as_it_was():
    config = serve_config()
    before = copy.deepcopy(config)
    after = with_hook(config, "secret", CONTRACT)
    assert config == before
    assert after["http_options"] == before["http_options"]
    assert after["applications"][1] == before["applications"][1]
    assert hooked_apps(after) == ["llm"]
    args = after["applications"][0]["args"]
    assert args["ingress_deployment_config"] == {"a": 1}
    old, new = before["applications"][0]["args"]["llm_configs"][0], args["llm_configs"][0]
    assert new["deployment_config"] == old["deployment_config"]
    assert new["model_loading_config"] == old["model_loading_config"]
    assert new["engine_kwargs"]["max_model_len"] == 2048
    assert new["engine_kwargs"]["additional_config"]["mine"] == 1
    assert new["runtime_env"]["env_vars"]["HF_HUB_OFFLINE"] == "1"


def test_each_replica_gets_the_hook_the_server_class_the_contract_and_the_environment():
    model = hooked(serve_config(), CONTRACT)
    assert model["server_cls"] == SERVER_CLASS
    assert model["engine_kwargs"]["scheduler_cls"] == HOOK
    held = read_settings(model["engine_kwargs"]["additional_config"])
    assert held.contract.terms_of("acme").weight == 2.0
    variables = model["runtime_env"]["env_vars"]
    assert variables["VLLM_PLUGINS"] == "lora_cache,hmas_engine"
    assert variables["HMAS_TOKEN"] == "secret"
    assert read_settings({"hmas": json.loads(variables[MEANT])}) == held
    assert variables["PYTHONPATH"].split(":")[0] == str(REPO)


def test_the_process_that_builds_the_application_finds_the_server_class_and_no_token():
    env = with_hook(serve_config(), "secret")["applications"][0]["runtime_env"]["env_vars"]
    assert env["PYTHONPATH"].split(":")[0] == str(REPO)
    assert "HMAS_TOKEN" not in env


def test_a_config_that_has_the_hook_may_be_hooked_again_with_its_secrets_taken_out():
    model = hooked(serve_config(), CONTRACT)
    for name in ("HMAS_TOKEN", MEANT):
        del model["runtime_env"]["env_vars"][name]
    assert hooked(serve_config(**model), CONTRACT)["engine_kwargs"] == model["engine_kwargs"]


def test_an_llm_config_may_be_a_file_of_its_own(tmp_path):
    model = serve_config()["applications"][0]["args"]["llm_configs"][0]
    file = tmp_path / "smol.yaml"
    file.write_text(yaml.safe_dump(model))
    config = serve_config()
    config["applications"][0]["args"]["llm_configs"] = [str(file)]
    assert hooked(config) == hooked(serve_config())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"server_cls": "my.Server"}, r"llm_configs\[0\].server_cls: 'my.Server': H-MAS needs"),
        ({"engine_kwargs": {"scheduler_cls": "my.S"}}, r"engine_kwargs.scheduler_cls: 'my.S'"),
        ({"engine_kwargs": {"additional_config": {"hmas": {"max_wait": 1}}}}, "hmas.max_wait"),
        ({"engine_kwargs": {"additional_config": {"hmas": {"gateway": "token"}}}}, "ingress asks"),
        ({"engine_kwargs": {"additional_config": {"hmas": {"contract": QUOTA}}}}, "quotas"),
        ({"engine_kwargs": {"additional_config": {"hmas": {"contract": CLASSES}}}}, "classes"),
        ({"engine_kwargs": {"additional_config": {"hmas": {"contract": KEY}}}}, "API keys"),
        ({"engine_kwargs": [1]}, r"llm_configs\[0\].engine_kwargs: must be a mapping, not \[1\]"),
        ({"runtime_env": {"env_vars": {"HMAS_TOKEN": "x"}}}, "env_vars.HMAS_TOKEN"),
    ],
)
def test_what_cannot_be_kept_is_named_and_refused(change, said):
    with pytest.raises(ContractError, match=said):
        with_hook(serve_config(**change), "secret")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "applications: must be a list"),
        ({"applications": ["llm"]}, r"applications\[0\]: must be a mapping"),
        ({"applications": [{"import_path": "shop:app"}]}, "none has `import_path"),
        ({"applications": [{"import_path": BUILDER}]}, r"\[0\].args.llm_configs: must be a list"),
    ],
)
def test_a_file_that_is_no_such_config_is_refused(config, said):
    with pytest.raises(ContractError, match=said):
        with_hook(config, "secret")


def test_requests_are_routed_by_deadline_where_it_is_asked_for():
    def routed(**given):
        config = with_hook(serve_config(**given), "secret", CONTRACT, router=True)
        model = config["applications"][0]["args"]["llm_configs"][0]
        return model["deployment_config"], json.loads(model["runtime_env"]["env_vars"][MEANT])

    deployment, meant = routed()
    assert deployment["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 4}
    router = deployment["request_router_config"]
    assert router["request_router_class"] == ROUTER_CLASS
    assert router["request_routing_stats_period_s"] == HINT_PERIOD_S
    assert json.loads(router["request_router_kwargs"]["settings"]) == meant
    given = {"request_router_config": {"request_routing_stats_period_s": 5.0}}
    kept, _ = routed(deployment_config=given)
    assert kept["request_router_config"]["request_routing_stats_period_s"] == 5.0
    other = {"request_router_config": {"request_router_class": "my.Router"}}
    assert hooked(serve_config(deployment_config=other))["deployment_config"] == other
    with pytest.raises(ContractError, match=r"request_router_class: 'my.Router': H-MAS needs"):
        routed(deployment_config=other)


def test_two_contracts_are_not_mixed():
    given = {"engine_kwargs": {"additional_config": {"hmas": {"contract": CONTRACT}}}}
    assert hooked(serve_config(**given), CONTRACT)
    with pytest.raises(ContractError, match="another contract than that of --contract"):
        with_hook(serve_config(**given), "secret", {"tenants": {}})


def run(capsys, *argv):
    with pytest.raises(SystemExit) as left:
        cli.main(["fleet", "serve", *argv])
    return left.value.code or 0, capsys.readouterr().err


def test_the_command_writes_a_config_that_only_its_owner_reads(tmp_path, capsys):
    source, token, out = tmp_path / "in.yaml", tmp_path / "hmas.token", tmp_path / "out.yaml"
    source.write_text(yaml.safe_dump(serve_config()))
    code, said = run(capsys, str(source), "--token-file", str(token), "--write", str(out))
    assert code == 0
    assert "beside it: hmas run --url ray://llm" in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    written = yaml.safe_load(out.read_text())
    assert written == with_hook(serve_config(), token.read_text().strip())


def test_without_ray_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serve_command, "find_spec", lambda name: None)
    code, said = run(capsys, str(tmp_path / "in.yaml"))
    assert code == 2
    assert "pip install 'hmas-scheduler[fleet]'" in said

"""What does Ray Serve need to run vLLM with the hook? `hmas fleet serve`.

Takes a Serve config as Ray users know it and adds to each LLM config what H-MAS needs: scheduler,
server class, settings with the contract, and the environment. All else passes through.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from serving.contracts import ContractError
from serving.contracts.in_force import MEANT
from serving.contracts.settings import EngineSettings, read_settings
from serving.engines.protocol import EngineUnavailable
from serving.launch.vllm_arguments import HOOK, REPO

SERVER_CLASS = "serving.fleet.ray_server:HMASServer"
BUILDER = "ray.serve.llm:build_openai_app"
PLUGIN = "hmas_engine"
ROUTER_CLASS = "serving.fleet.ray_router:DeadlineRouter"
HINT_PERIOD_S = 0.5  # between two hints of a replica; Ray looks ten times a second
UNKEPT = (
    "Ray's ingress asks nothing of requests: API keys, classes that a tenant may ask for and "
    "quotas would not be kept; take them out of the contract, and check them at your gateway"
)


class RayMissing(EngineUnavailable):
    """Ray Serve is not installed; says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "Ray Serve is not installed here: pip install 'hmas-scheduler[fleet]' (ray[serve], "
            "pyarrow, jsonref)"
        )


def with_hook(
    config: Mapping[str, Any], token: str, contract: Mapping[str, Any] | None = None,
    router: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The Serve config with the hook in every LLM config of every OpenAI application.

    Args:
        config: as of Ray's `serve run` and `serve deploy`.
        token: HMAS_TOKEN of the replicas.
        contract: encoded; None leaves what the config says under `additional_config`.
        router: whether requests go where their deadlines are met (`ray_router`).

    Raises:
        ContractError: names the key that cannot be kept, and what to do.
    """
    apps = _list(config, "applications", "")
    done = [
        _app(app, f"applications[{i}]", token, contract, router) for i, app in enumerate(apps)
    ]
    if not any(app.get("import_path") == BUILDER for app in apps):
        raise ContractError(
            f"applications: none has `import_path: {BUILDER}`, which H-MAS knows: write one"
        )
    return {**config, "applications": done}


def hooked_apps(config: Mapping[str, Any]) -> list[str]:
    """Names of the applications that `with_hook` changes."""
    apps = [app for app in config["applications"] if app.get("import_path") == BUILDER]
    return [app.get("name", "default") for app in apps]


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file with a mapping in it.

    Raises:
        ContractError: it has none.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ContractError(f"{path}: must be a mapping, as `serve build` writes it")
    return content


def _app(
    app: Any, at: str, token: str, contract: Mapping[str, Any] | None, router: bool
) -> dict[str, Any]:
    if not isinstance(app, dict):
        raise ContractError(f"{at}: must be a mapping, not {app!r}")
    if app.get("import_path") != BUILDER:
        return dict(app)
    args = _mapping(app, "args", at)
    models = []
    for i, each in enumerate(_list(args, "llm_configs", f"{at}.args.")):
        here = f"{at}.args.llm_configs[{i}]"
        model = read_config(Path(each)) if isinstance(each, str) else each
        if not isinstance(model, dict):
            raise ContractError(f"{here}: must be a mapping or a file's name, not {model!r}")
        models.append(_model(model, here, token, contract, router))
    # Ray builds the application in a process of its own, which imports the server class.
    env = _environment(app, at, {})
    return {**app, "args": {**args, "llm_configs": models}, "runtime_env": env}


def _model(
    model: dict[str, Any], at: str, token: str, contract: Mapping[str, Any] | None, router: bool
) -> dict[str, Any]:
    engine = _mapping(model, "engine_kwargs", at)
    others = _mapping(engine, "additional_config", f"{at}.engine_kwargs")
    given = _mapping(others, "hmas", f"{at}.engine_kwargs.additional_config")
    if contract is not None:
        given = _with_contract(given, contract, at)
    try:
        settings = read_settings({"hmas": given})
    except ContractError as error:
        raise ContractError(f"{at}.engine_kwargs: {error}") from error
    if settings.gateway != "off" or settings.contract.asks_of_requests:
        raise ContractError(f"{at}: {UNKEPT}")
    ours = settings.model_dump(mode="json", exclude_defaults=True)
    hooked = {
        **engine,
        **_only(engine, "scheduler_cls", HOOK, f"{at}.engine_kwargs"),
        "additional_config": {**others, "hmas": ours},
    }
    wanted = {"VLLM_PLUGINS": PLUGIN, "HMAS_TOKEN": token, MEANT: _meant(settings)}
    return {
        **model,
        **_only(model, "server_cls", SERVER_CLASS, at),
        **(_with_router(model, settings, at) if router else {}),
        "engine_kwargs": hooked,
        "runtime_env": _environment(model, at, wanted),
    }


def _with_contract(
    given: Mapping[str, Any], contract: Mapping[str, Any], at: str
) -> dict[str, Any]:
    if given.get("contract", contract) != contract:
        raise ContractError(
            f"{at}.engine_kwargs.additional_config.hmas.contract: another contract than that of "
            "--contract: give it once"
        )
    return {**given, "contract": contract}


def _with_router(model: dict[str, Any], settings: EngineSettings, at: str) -> dict[str, Any]:
    deployment = _mapping(model, "deployment_config", at)
    at = f"{at}.deployment_config"
    config = _mapping(deployment, "request_router_config", at)
    ours = {
        "request_routing_stats_period_s": HINT_PERIOD_S, **config,
        **_only(config, "request_router_class", ROUTER_CLASS, f"{at}.request_router_config"),
        "request_router_kwargs": {"settings": _meant(settings)},
    }  # fmt: skip
    return {"deployment_config": {**deployment, "request_router_config": ours}}


def _meant(settings: EngineSettings) -> str:
    return settings.model_dump_json(exclude_defaults=True)


def _only(into: Mapping[str, Any], key: str, ours: str, at: str) -> dict[str, str]:
    if into.get(key, ours) != ours:
        raise ContractError(
            f"{at}.{key}: {into[key]!r}: H-MAS needs {ours} there, and there is room for one: "
            "leave the key out"
        )
    return {key: ours}


def _environment(into: Mapping[str, Any], at: str, wanted: Mapping[str, str]) -> dict[str, Any]:
    """The `runtime_env` with what is wanted and the path to this code beside what is there."""
    env = _mapping(into, "runtime_env", at)
    variables = _mapping(env, "env_vars", f"{at}.runtime_env")
    for name in {"HMAS_TOKEN", MEANT} & wanted.keys() & variables.keys():
        raise ContractError(f"{at}.runtime_env.env_vars.{name}: `hmas fleet serve` sets it")
    path = filter(None, [str(REPO), variables.get("PYTHONPATH") or os.environ.get("PYTHONPATH")])
    ours = {**wanted, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
    if "VLLM_PLUGINS" in wanted:
        plugins = [name for name in str(variables.get("VLLM_PLUGINS", "")).split(",") if name]
        ours["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*plugins, PLUGIN]))
    return {**env, "env_vars": {**variables, **ours}}


def _mapping(into: Mapping[str, Any], key: str, at: str) -> dict[str, Any]:
    value = into.get(key) or {}
    if not isinstance(value, dict):
        raise ContractError(f"{at}.{key}: must be a mapping, not {json.dumps(value)[:80]}")
    return value


def _list(into: Mapping[str, Any], key: str, at: str) -> list[Any]:
    value = into.get(key)
    if not isinstance(value, list) or not value:
        raise ContractError(f"{at}{key}: must be a list with something in it, not {value!r}")
    return value

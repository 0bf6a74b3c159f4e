"""Does a server start only with the settings that were meant, in all of its processes?"""

import asyncio
from argparse import Namespace
from typing import Any

import pytest

from serving.contracts import ContractError
from serving.contracts.in_force import MEANT, check_api_server, fingerprint, settings_in_force
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.plugin.routes import HMASEndpoints
from tests.serving.samples import profile, shares
from tests.serving.served_ranks import EngineClient

GATEWAY = EngineSettings(gateway="token", contract=shares({}, {"acme": 0.3}))
LOST = r"was told hmas.gateway='token', but vLLM holds"
MIDDLEWARE = ["serving.plugin.gateway.GatewayMiddleware"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", "of-the-server")
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", "of-the-gateway")
    monkeypatch.delenv(MEANT, raising=False)


def given(settings: EngineSettings, **more: Any) -> Namespace:
    """vLLM's arguments, as far as they matter here."""
    hmas = settings.model_dump(mode="json", exclude_defaults=True)
    return Namespace(**{"additional_config": {"hmas": hmas}, "middleware": MIDDLEWARE, **more})


@pytest.mark.parametrize("held", [None, {}, {"x": 1}, {"hmas": {"gateway": "always"}}])
def test_settings_that_vllm_lost_stop_the_server(monkeypatch, held):
    monkeypatch.setenv(MEANT, GATEWAY.model_dump_json(exclude_defaults=True))
    assert check_api_server(given(GATEWAY)) == GATEWAY
    with pytest.raises(ContractError, match=LOST):
        check_api_server(given(GATEWAY, additional_config=held))
    with pytest.raises(ContractError, match=LOST):
        settings_in_force(held)
    with pytest.raises(ContractError, match=LOST):
        SimulatedEngine(profile(900), EngineSettings())  # the hook, in the engine core


def test_a_missing_middleware_stops_the_server():
    for middleware in ([], None, ["mine.Other"]):
        with pytest.raises(ContractError, match=r"need --middleware serving.plugin.gateway"):
            check_api_server(given(GATEWAY, middleware=middleware))
    assert check_api_server(given(EngineSettings(), middleware=[])) == EngineSettings()


@pytest.mark.parametrize("variable", ["HMAS_TOKEN", "HMAS_GATEWAY_TOKEN"])
def test_a_missing_token_stops_the_server(monkeypatch, variable):
    monkeypatch.setenv(variable, "")
    with pytest.raises(ContractError, match=f"needs {variable}"):
        check_api_server(given(GATEWAY))


def start(client: EngineClient, args: Namespace) -> None:
    async def serve() -> None:
        endpoints = HMASEndpoints()
        try:
            await endpoints.init_state(client, None, args)
        finally:
            endpoints.close()

    asyncio.run(serve())


def test_an_engine_core_with_other_settings_stops_the_api_server():
    client = EngineClient(ranks=2)
    for hook in client.hooks:
        hook.settings = GATEWAY
    start(client, given(GATEWAY))
    client.hooks[1].settings = EngineSettings()
    with pytest.raises(ContractError, match="engine core 1 has other settings"):
        start(client, given(GATEWAY))


def test_a_core_without_the_hook_or_without_an_answer_stops_the_api_server():
    client = EngineClient()
    client.hooks = [object()]
    with pytest.raises(ContractError, match="vLLM runs object, not the hook"):
        start(client, given(EngineSettings()))
    client.down = True
    with pytest.raises(ContractError, match="the engine did not answer"):
        start(client, given(EngineSettings()))


def test_a_fingerprint_tells_settings_and_tokens_apart(monkeypatch):
    prints = {fingerprint(GATEWAY), fingerprint(EngineSettings())}
    monkeypatch.setenv("HMAS_TOKEN", "another")
    prints.add(fingerprint(GATEWAY))
    assert len(prints) == 3
    assert fingerprint(GATEWAY) in prints

"""Does Ray itself take what `hmas fleet serve` writes, and does its server pass messages on?

Runs where the extra `fleet` is installed. No cluster and no vLLM server is started.
"""

import asyncio

import pytest

from serving.contracts import Contract, ContractChange, encode
from serving.contracts.contract import TenantTerms
from serving.fleet.ray_app import with_hook
from tests.serving.fleet.test_ray_app import serve_config
from tests.serving.served_ranks import EngineClient

pytest.importorskip("ray.serve.llm", reason="needs the extra fleet")


class FakeVLLM:
    """Ray's engine, as much of it as a server's start uses, over two fake ranks."""

    def __init__(self, llm_config):
        self._engine_client = EngineClient(ranks=2)

    async def start(self):
        pass


@pytest.fixture
def server(monkeypatch):
    from ray.llm._internal.serve.core.server import llm_server
    from ray.serve.llm import LLMConfig

    from serving.fleet.ray_server import HMASServer

    monkeypatch.setattr(llm_server, "push_telemetry_report_for_all_models", lambda **_: None)
    model = with_hook(serve_config(), "t")["applications"][0]["args"]["llm_configs"][0]
    config = LLMConfig.model_validate(model)
    assert config.server_cls is HMASServer
    server = HMASServer.sync_init(config, engine_cls=FakeVLLM)
    asyncio.run(server.start())
    return server


def test_rays_own_models_take_the_config():
    from ray.serve.llm import LLMServingArgs
    from ray.serve.schema import ServeDeploySchema

    hooked = with_hook(serve_config(), "secret")
    taken = ServeDeploySchema.model_validate(hooked)
    args = dict(taken.applications[0].args)
    args.pop("ingress_deployment_config")
    model = LLMServingArgs.model_validate(args).llm_configs[0]
    assert model.model_id == "smol"
    assert model.deployment_config["autoscaling_config"]["max_replicas"] == 4


def test_a_message_reaches_every_engine_core_of_the_replica(server):
    answers = asyncio.run(server.hmas_call("stop", {"by": "me", "reason": ""}))
    assert [answer["rank"] for answer in answers] == [0, 1]
    assert all(answer["accepted"] for answer in answers)


def test_a_contract_that_the_ingress_would_not_keep_is_refused_and_the_old_one_stays(server):
    def apply(terms):
        change = ContractChange(Contract(tenants={"acme": terms}), 1, "me")
        return asyncio.run(server.hmas_call("apply_contract", encode(change)))

    answers = apply(TenantTerms(max_waiting=1))
    assert [answer["accepted"] for answer in answers] == [False, False]
    assert "quotas would not be kept" in answers[0]["reason"]
    assert [answer["accepted"] for answer in apply(TenantTerms(weight=2))] == [True, True]

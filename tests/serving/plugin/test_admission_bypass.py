"""Which routes, proofs and adapters does the gate believe? What must not go round it, or jam it."""

import asyncio
import hashlib
import json
import re
import time
import tomllib
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from hmas_agents.agents.chat import own_request
from serving.contracts import SLO, Arrival, Contract, TenantTerms, TraceRequest, with_classes
from serving.contracts import contract as contract_module
from serving.contracts.settings import EngineSettings
from serving.perception.attributes import sign_tenant, signed_tenant, slo_of, tenant_of
from serving.plugin import routes
from serving.plugin.admission_gate import Size
from tests.serving.api_server import CHAT, ApiServer

HASH = "sha256:" + hashlib.sha256(b"k1").hexdigest()
KEYS = Contract(tenants={"acme": TenantTerms(api_key_hashes=(HASH,))})


@pytest.fixture(autouse=True)
def _tokens(monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", "of-the-server")
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", "of-the-gateway")


def started(contract: Contract, **more: Any) -> ApiServer:
    return ApiServer(EngineSettings(contract=contract, **more))


# -- routes --------------------------------------------------------------------------------


UNJUDGED = (
    "/v1/chat/completions/batch", "/cohere/v2/chat", "/v1/audio/transcriptions",
    "/v1/audio/translations", "/v1/systemone", "/generative_scoring",
)  # fmt: skip


@pytest.mark.parametrize("path", UNJUDGED)
def test_routes_that_carry_no_tenant_are_refused_where_requests_are_held_to_a_contract(path):
    """vLLM 0.32 serves batches of chats by default: they passed every quota and class."""
    quotas = Contract(tenants={"default": TenantTerms(max_waiting=1)})
    for server in (started(quotas), started(KEYS), started(Contract(), gateway="token")):
        reply = server.send(path=path, headers={"x-api-key": "k1"})
        assert reply.status_code == httpx.codes.FORBIDDEN
        assert "those of this route name no tenant" in reply.json()["error"]["message"]
    assert started(Contract()).send(path=path).status_code == httpx.codes.NOT_FOUND, "as in vLLM"


# What vLLM serves by POST that makes the engine schedule nothing of a generating model's.
HARMLESS = re.compile(
    r"/hmas/|/ping$|.*/(de)?render$|/(de)?tokenize$|.*/count_tokens$|.*/cancel$|.*abort_requests$"
    r"|/(v[12]/)?(pooling|classify|score|rerank|embed|embeddings)$"
    r"|/v1/(un)?load_lora_adapter$|/(start|stop)_profile$|/reset_|/(sleep|wake_up|pause|resume)$"
    r"|/release_kv_cache_memory$|/collective_rpc$|/(is_scaling|scale)_elastic_ep$|/fault_tolerance/"
    r"|/.*weight"
)


def test_every_route_of_this_vllm_that_generates_is_judged_or_refused():
    import vllm

    from serving.plugin.bodies import is_unjudged, place_of

    def is_known(path: str) -> bool:
        scope = {"type": "http", "method": "POST", "path": path}
        return place_of(scope) is not None or is_unjudged(scope) or HARMLESS.match(path) is not None

    found = set[str]()
    for file in Path(vllm.__file__).parent.joinpath("entrypoints").rglob("*.py"):
        text = file.read_text()
        found.update(re.findall(r"\.(?:post|websocket|add_api_route)\(\s*[\"'](/[^\"']*)", text))
    assert {CHAT, "/v1/completions", "/tokenize"} <= found, "this is how vLLM writes its routes"
    assert [path for path in sorted(found) if not is_known(path)] == []


def test_a_websocket_with_a_key_is_closed_too():
    with (
        TestClient(started(KEYS).app) as client, pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/v1/realtime", headers={"x-api-key": "k1"}),
    ):  # fmt: skip
        pass
    assert "this route" in closed.value.reason


# -- what must not jam the poll --------------------------------------------------------------


def rejected(server: ApiServer) -> dict[str, int]:
    return {row.tenant: row.rejected for row in server.engine.snapshot().counters if row.rejected}


def overloaded() -> ApiServer:
    contract = with_classes({}, ["batch"]).model_copy(update={"believe_clients": True})
    server = started(contract)
    server.shed(1.0)
    return server


def test_invented_names_do_not_add_up_while_only_shedding_is_on():
    server = overloaded()

    def invent(first: int) -> int:
        for number in range(first, first + 3000):
            server.gate.enter(f"tenant-{number}", Size(1, 1, 0))()
        server.poll()
        return tracemalloc.get_traced_memory()[0]

    server.gate.enter("acme", Size(2, 1, 0))
    tracemalloc.start()
    before = invent(0)
    grown = invent(3000) - before
    tracemalloc.stop()
    assert grown < 100_000, "bytes; 3000 records are several times that"
    quotas = Contract(tenants={"acme": TenantTerms(max_waiting=2)})
    server.gate.go_by(EngineSettings(contract=quotas), server.gate.epoch)
    over = asyncio.run(server.gate.over_quota("acme", Size(1, 1, 0)))
    assert over is not None, "what is still here counts when quotas come"


def test_a_tenants_name_that_cannot_be_written_is_none():
    """It could not be told to the engine: every further poll failed until a restart."""
    server = overloaded()
    for name in (r"\ud800", "acme"):
        content = f'{{"messages": [], "vllm_xargs": {{"tenant": "{name}", "slo_class": "batch"}}}}'
        reply = server.post("batch", json=None, content=content)
        assert reply.status_code == httpx.codes.SERVICE_UNAVAILABLE
    server.poll()
    assert rejected(server) == {"default": 1, "acme": 1}


def test_a_refusal_that_cannot_be_told_is_dropped_and_the_poll_goes_on(caplog):
    server = overloaded()
    unwritable = Arrival(0, "\ud800", 0.0, "acme", "batch", SLO(), 1, 1)
    server.gate.note(unwritable)
    server.poll()
    assert rejected(server) == {}
    server.post("batch")
    server.poll()
    assert rejected(server) == {"acme": 1}
    server.gate.note(unwritable)
    server.poll()
    assert caplog.text.count("some refusals are not counted") == 1


def test_the_poll_outlives_totals_that_cannot_be_read(monkeypatch, caplog):
    server = overloaded()
    follow, polls = server.gate.follow, []

    def fails_once(totals: Any) -> None:
        polls.append(totals)
        if len(polls) == 1:
            raise ValueError("unreadable")
        follow(totals)

    monkeypatch.setattr(server.gate, "follow", fails_once)
    monkeypatch.setattr(routes, "POLL_S", 0.0)

    async def scenario() -> None:
        polling = asyncio.create_task(server.endpoints.poll())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not polling.done()
        polling.cancel()

    asyncio.run(scenario())
    assert len(polls) > 1
    assert "cannot be read: ValueError('unreadable')" in caplog.text


def test_shedding_ends_with_the_kill_switch_and_not_a_poll_later():
    server = overloaded()
    stop = {"by": "test"}
    token = {"authorization": "Bearer of-the-server"}
    assert server.send(path="/hmas/stop", headers=token, json=stop).status_code == httpx.codes.OK
    assert server.post("batch").status_code == httpx.codes.OK


def test_a_flood_of_refusals_does_not_keep_the_gate_from_following():
    """While each answer of the engine found one more refusal, nothing was followed."""
    server = overloaded()
    server.gate.note(Arrival(0, "first", 0.0, "acme", "batch", SLO(), 1, 1))
    tell, told = server.call_utility_all_async, []

    async def told_while_more_come(name: str, *args: Any) -> Any:
        told.append(args)
        assert len(told) < 10, "it does not end"
        server.gate.note(Arrival(0, f"r{len(told)}", 0.0, "acme", "batch", SLO(), 1, 1))
        return await tell(name, *args)

    server.call_utility_all_async = told_while_more_come  # type: ignore[method-assign]
    server.poll()
    assert len(told) == 1
    server.poll()
    assert rejected(server) == {"acme": 2}


# -- proofs ----------------------------------------------------------------------------------

GATEWAY = {"x-hmas-gateway-token": "of-the-gateway"}


def engine_sees(server: ApiServer) -> str:
    return tenant_of(server.served[-1].get("vllm_xargs") or {}, None, server.settings)


@pytest.mark.parametrize("contract", [Contract(), Contract(tenants={"default": TenantTerms(
    max_waiting=9)})])  # fmt: skip
def test_a_proof_that_the_middleware_wrote_is_worth_nothing_to_a_client_that_has_seen_it(contract):
    server = started(contract, gateway="token")
    server.send(headers={**GATEWAY, "x-hmas-tenant": "acme"})
    seen = server.served[-1]["vllm_xargs"]
    assert engine_sees(server) == "acme"
    for headers in ({}, {**GATEWAY, "x-hmas-slo-class": "batch"}):
        server.send(headers=headers, vllm_xargs=seen)
        assert engine_sees(server) == "default"


def test_nor_after_its_tenants_keys_are_gone():
    server = started(KEYS)
    server.send(headers={"x-api-key": "k1"})
    seen = server.served[-1]["vllm_xargs"]
    after = TenantTerms(api_key_hashes=("sha256:" + "0" * 64,))
    later = started(Contract(tenants={"acme": TenantTerms(), "bulk": after}, require_keys=False))
    later.send(vllm_xargs=seen)
    assert engine_sees(later) == "default"


@pytest.mark.parametrize(("age_s", "holds"), [(290, True), (310, False), (-25, True), (-60, False)])
def test_a_proof_holds_for_some_minutes(monkeypatch, age_s, holds):
    monkeypatch.setattr(time, "time", lambda: 1e9)
    own = {"tenant": "hmas", "tenant_proof": sign_tenant("hmas")}
    monkeypatch.setattr(time, "time", lambda: 1e9 + age_s)
    assert (signed_tenant(own) == "hmas") == holds
    reply = started(KEYS).send(vllm_xargs=own)
    assert (reply.status_code == httpx.codes.OK) == holds


@pytest.mark.parametrize("proof", [
    "own.1.00", "own..", "own.\u00b2.00", f"own.{'9' * 150}.00", "x" * 10**6, "own", 7,
])  # fmt: skip
def test_a_proof_that_is_none_is_not_believed(proof):
    assert signed_tenant({"tenant": "hmas", "tenant_proof": proof}) is None


def test_the_controller_is_served_what_it_asks_for_under_the_example_contract():
    """Its own tenant is in no table, so it got 403 for its deadline: the agent never decided."""
    example = Path(contract_module.__file__).with_name("contract.toml")
    server = started(Contract.model_validate(tomllib.loads(example.read_text())))
    for _ in range(30):  # `[tenants.default]` lets 20 wait
        server.gate.enter("hmas", Size(1, 1, 0))
    own = own_request("hmas", 4.0)
    assert server.send(vllm_xargs=own).status_code == httpx.codes.OK
    assert slo_of(server.served[-1]["vllm_xargs"], server.settings, "hmas") == (
        "custom", SLO(e2e_ms=4000.0),
    )  # fmt: skip
    key = {"x-api-key": "example"}
    asked = {**own, "slo_class": "document"}
    del asked["slo_e2e_ms"]
    reply = server.send(vllm_xargs=asked, headers=key)
    assert reply.status_code == httpx.codes.FORBIDDEN, "with a key it is that key's tenant"


def test_without_a_key_a_body_is_not_read_to_its_end_nor_parsed(monkeypatch):
    server, chunks = started(KEYS), []

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            chunks.append(b" " * 100_000)
            yield chunks[-1]

    reply = server.post("batch", json=None, content=body())
    assert reply.status_code == httpx.codes.UNAUTHORIZED
    assert len(chunks) < 5
    monkeypatch.setattr(json, "loads", None)
    assert server.send().status_code == httpx.codes.UNAUTHORIZED


@pytest.mark.parametrize("require_keys", [True, False])
def test_a_fault_in_the_look_up_of_a_key_serves_nobody(monkeypatch, require_keys):
    """Security fails closed; what is only fairness may pass on a fault of ours."""
    server = started(KEYS.model_copy(update={"require_keys": require_keys}))

    def fails(key: str) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(server.gate, "owner_of", fails)
    client = TestClient(server.app, raise_server_exceptions=False)
    own = {"tenant": "hmas", "tenant_proof": sign_tenant("hmas")}
    for headers in ({}, {"x-api-key": "k1"}, {"authorization": "Bearer k1"}):
        for extra in ({}, own):
            reply = client.post(CHAT, headers=headers, json={"messages": [], "vllm_xargs": extra})
            assert reply.status_code == httpx.codes.INTERNAL_SERVER_ERROR
    assert server.served == []


def test_a_fault_in_the_quota_check_lets_pass_and_is_said_once(monkeypatch, caplog):
    server = started(Contract(tenants={"default": TenantTerms(max_waiting=1)}))
    monkeypatch.setattr(server.gate, "over_quota", None)
    assert [server.send().status_code for _ in range(3)] == [httpx.codes.OK] * 3
    assert caplog.text.count("lets pass what it cannot judge") == 1


def test_a_lora_adapters_tenant_is_held_to_its_terms():
    """The engine takes the adapter's name for the tenant; the gate did not know it."""
    server = started(Contract(tenants={"mine": TenantTerms(classes=("batch",))}))
    server.app.state.openai_serving_models = SimpleNamespace(lora_requests={"mine": object()})
    asked = {"slo_class": "interactive"}
    assert server.send(model="mine", vllm_xargs=asked).status_code == httpx.codes.FORBIDDEN
    assert server.send(model="base", vllm_xargs=asked).status_code == httpx.codes.OK


def test_a_question_about_a_quota_asks_for_no_histograms():
    """They are most of the totals' cost, and a quota in doubt asks up to 50 times a second."""
    server = started(Contract(tenants={"default": TenantTerms(max_waiting=1)}))
    server.poll()
    tell, asked = server.call_utility_all_async, list[int]()

    async def told(name: str, *args: Any) -> Any:
        ranks = await tell(name, *args)
        asked.extend(len(rank["histograms"]) for rank in ranks)
        return ranks

    server.engine.run([TraceRequest(0.0, 50, 4, "acme", "batch")])
    server.call_utility_all_async = told  # type: ignore[method-assign]
    server.send_at_once(3)
    assert asked
    assert not any(asked)
    server.poll()
    assert asked[-1] > 0

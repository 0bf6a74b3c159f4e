"""Keys, classes and quotas: who gets in, as whom, and what is told of those who do not."""

import asyncio
import hashlib
import json
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serving.contracts import (
    ClassTerms,
    Contract,
    ContractChange,
    ContractError,
    TenantTerms,
    encode,
)
from serving.contracts.settings import EngineSettings
from serving.perception.attributes import sign_tenant, slo_of, tenant_of
from serving.plugin.admission_gate import AdmissionGate, Size
from tests.serving.api_server import CHAT, OK, ApiServer
from tests.serving.simulation import journal_of

GATEWAY = "of-the-gateway"
TOKEN = {"authorization": "Bearer of-the-server"}


@pytest.fixture(autouse=True)
def _tokens(monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", "of-the-server")
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", GATEWAY)


def hashed(key: str) -> str:
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


KEYS = Contract(
    tenants={
        "acme": TenantTerms(classes=("interactive",), api_key_hashes=(hashed("k1"), hashed("k2"))),
        "bulk": TenantTerms(api_key_hashes=(hashed("k3"),)),
    }
)


def started(contract: Contract, **more: Any) -> ApiServer:
    return ApiServer(EngineSettings(contract=contract, **more))


def seen_by(server: ApiServer, reply: httpx.Response) -> tuple[str, str]:
    """Tenant and SLO class that the scheduler makes of what reached it."""
    assert reply.status_code == OK, reply.text
    extra, settings = server.served[-1].get("vllm_xargs") or {}, server.settings
    tenant = tenant_of(extra, None, settings)
    return tenant, slo_of(extra, settings, tenant)[0]


# -- API keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        ({"authorization": "Bearer k1"}, "acme"),
        ({"authorization": "bearer k2"}, "acme"),
        ({"x-api-key": "k3"}, "bulk"),
        ({"x-api-key": "k3", "authorization": "Bearer of-vllms-own-option"}, "bulk"),
    ],
)
@pytest.mark.parametrize("claimed", [{}, {"tenant": "bulk"}, {"tenant": "x", "tenant_proof": "y"}])
def test_a_key_names_the_tenant_and_nothing_that_the_client_claims_does(headers, tenant, claimed):
    server = started(KEYS)
    reply = server.send(headers=headers, vllm_xargs=claimed)
    assert seen_by(server, reply)[0] == tenant
    assert server.served[-1]["messages"] == [], "the rest is as it was sent"


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": "k4"}, {"authorization": "Basic k1"}, {"x-api-key": hashed("k1")}]
)
def test_without_a_known_key_it_is_401_on_every_route_that_does_work(headers):
    server = started(KEYS)
    for path in (CHAT, "/v1/embeddings", "/v1/audio/transcriptions", "/sleep"):
        reply = server.send(path=path, headers=headers, vllm_xargs={"tenant": "acme"})
        assert reply.status_code == httpx.codes.UNAUTHORIZED
        assert reply.json()["error"]["type"] == "AuthenticationError"
        assert reply.headers["www-authenticate"] == "Bearer"
    assert server.served == []
    assert server.get("/v1/models", headers=headers).status_code == OK
    reply = server.get("/hmas/snapshot", headers=TOKEN)
    assert reply.status_code == OK, "it has a token of its own"


def test_without_a_known_key_a_websocket_is_closed():
    server = started(KEYS)
    with (
        TestClient(server.app) as client, pytest.raises(WebSocketDisconnect),
        client.websocket_connect("/v1/realtime"),
    ):  # fmt: skip
        pass


def test_keys_that_are_not_required_leave_others_anonymous():
    server = started(KEYS.model_copy(update={"require_keys": False}))
    reply = server.send(vllm_xargs={"tenant": "acme"})
    assert seen_by(server, reply)[0] == "default"


def test_the_gateways_word_goes_before_a_key_and_needs_none():
    server = started(KEYS, gateway="token")
    said = {"x-hmas-gateway-token": GATEWAY, "x-hmas-tenant": "bulk"}
    assert seen_by(server, server.send(headers=said))[0] == "bulk"
    assert seen_by(server, server.send(headers={**said, "x-api-key": "k1"}))[0] == "bulk"
    said["x-hmas-gateway-token"] = "guessed"
    assert server.send(headers=said).status_code == httpx.codes.UNAUTHORIZED


def test_the_controller_signs_its_own_requests_and_needs_no_key():
    server = started(KEYS)
    own = {"tenant": "hmas", "tenant_proof": sign_tenant("hmas")}
    assert seen_by(server, server.send(vllm_xargs=own))[0] == "hmas"


@pytest.mark.parametrize("required", [True, False])
def test_a_signature_does_not_stand_for_a_tenant_that_has_keys(required):
    """Whoever has seen one could go on with it after its key was taken away."""
    server = started(KEYS.model_copy(update={"require_keys": required}))
    seen = {"tenant": "acme", "tenant_proof": sign_tenant("acme")}
    assert server.send(vllm_xargs=seen).status_code == httpx.codes.UNAUTHORIZED
    reply = server.send(vllm_xargs=seen, headers={"x-api-key": "k3"})
    assert seen_by(server, reply)[0] == "bulk"


# -- classes -----------------------------------------------------------------------------


def test_a_class_that_the_contract_does_not_allow_is_403_and_says_which_are():
    server = started(KEYS)
    key = {"x-api-key": "k1"}
    for asked in ({"slo_class": "document"}, {"slo_ttft_ms": 1}):
        reply = server.send(headers=key, vllm_xargs=asked)
        assert reply.status_code == httpx.codes.FORBIDDEN
        message = reply.json()["error"]["message"]
        assert "tenant 'acme' may not ask for SLO class" in message
        assert message.endswith("it may ask for interactive")
    assert seen_by(server, server.send(headers=key)) == ("acme", "interactive")
    asked = {"slo_class": "interactive"}
    assert seen_by(server, server.send(headers=key, vllm_xargs=asked)) == ("acme", "interactive")
    unknown = server.send(headers=key, vllm_xargs={"slo_class": "nope"})
    assert seen_by(server, unknown) == ("acme", "interactive"), "as ever, the default"


# -- quotas ------------------------------------------------------------------------------

TOKENS = Contract(tenants={"acme": TenantTerms(tokens_per_minute=600)}, believe_clients=True)
MINE = {"tenant": "acme", "slo_class": "batch"}


def test_over_its_tokens_a_client_gets_429_with_retry_after_and_is_counted():
    server = started(TOKENS)
    server.poll()
    replies = server.send_at_once(5, vllm_xargs=MINE, max_tokens=270)
    refused = [reply for reply in replies if reply.status_code == 429]
    assert [reply.status_code for reply in replies].count(OK) == 2
    assert len(refused) == 3
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60
    error = refused[0].json()["error"]
    assert error["type"] == "RateLimitError"
    assert "tenant 'acme' is over its quota: its contract allows 600 tokens" in error["message"]
    others = server.send(vllm_xargs={"tenant": "bulk"}, max_tokens=270)
    assert others.status_code == OK
    server.poll()
    (row,) = [row for row in server.engine.snapshot().counters if row.rejected]
    assert (row.tenant, row.slo_class, row.rejected, row.received) == ("acme", "batch", 3, 0)
    outcomes = journal_of(server.engine)[1]
    assert [(o.tenant, o.finish, o.miss) for o in outcomes] == [
        ("acme", "rejected", "not_served")
    ] * 3


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def totals(used: int, waiting: int, inside: int, tenant: str = "acme") -> list[Any]:
    """One rank's totals, as far as the gate reads them."""
    counters = [{"tenant": tenant, "prompt_tokens": used // 3, "output_tokens": used - used // 3}]
    loads = [{"tenant": tenant, "waiting": waiting, "inside": inside}] if inside else []
    lease = {"rank": 0, "shed": 0.0, "lease_left_s": 0.0, "parts": {}}
    return [{**lease, "counters": counters, "loads": loads}]


def gate_of(contract: Contract) -> tuple[AdmissionGate, Clock]:
    clock = Clock()
    gate = AdmissionGate(clock)
    gate.go_by(EngineSettings(contract=contract))
    return gate, clock


def followed(gate: AdmissionGate, **said: int) -> None:
    gate.take_untold()
    gate.follow(totals(said.get("used", 0), said.get("waiting", 0), said.get("inside", 0)))


def asks(gate: AdmissionGate, tokens: int, requests: int = 1) -> int | None:
    """None if the request may pass, else its Retry-After."""
    over = asyncio.run(gate.over_quota("acme", Size(requests, tokens, 0)))
    return None if over is None else over.retry_after_s


def test_tokens_that_the_engine_has_counted_are_charged_and_come_back_with_time():
    gate, clock = gate_of(TOKENS)
    followed(gate, used=5000)  # what was used before this server followed
    assert asks(gate, 600) is None
    leave = gate.enter("acme", Size(1, 300, 0))
    assert asks(gate, 300) is None
    assert asks(gate, 301) == 1
    leave()
    followed(gate, used=5500)  # its answer was longer than what it said
    assert asks(gate, 100) is None
    assert asks(gate, 101) == 1
    assert asks(gate, 400) == 30
    clock.now_s += 30.0
    assert asks(gate, 400) is None
    clock.now_s += 600.0
    assert asks(gate, 600) is None
    assert asks(gate, 601) is None, "more than a minute's tokens may go when nothing else does"
    gate.enter("acme", Size(1, 601, 0))
    assert asks(gate, 1) == 1


def test_a_tenant_that_was_counted_with_others_for_a_while_is_charged_from_its_new_row_on():
    gate, _ = gate_of(TOKENS)
    followed(gate, used=5000)
    gate.enter("acme", Size(1, 0, 0))
    gate.follow(totals(used=5000, waiting=0, inside=0, tenant="other"))
    followed(gate, used=400)
    assert asks(gate, 201) == 1


def test_two_servers_share_what_the_engine_counts():
    (one, _), (two, _) = gate_of(TOKENS), gate_of(TOKENS)
    for gate in (one, two):
        followed(gate, used=0)
    one.enter("acme", Size(1, 600, 0))()
    for gate in (one, two):
        followed(gate, used=600)
        assert asks(gate, 10) == 1


def test_a_replica_of_a_fleet_gives_its_part_of_a_quota_while_the_lease_holds():
    gate, clock = gate_of(TOKENS)
    (said,) = totals(used=0, waiting=0, inside=0)
    gate.follow([{**said, "lease_left_s": 2.0, "parts": {"acme": {"share": 1.0, "limits": 0.5}}}])
    gate.enter("acme", Size(1, 300, 0))
    assert asks(gate, 1) == 1, "300 tokens a minute are its part of 600"
    clock.now_s += 2.0
    assert asks(gate, 1) is None, "nobody divides any more"


WAITING = Contract(tenants={"acme": TenantTerms(max_waiting=4)}, believe_clients=True)


def test_what_waits_in_the_engine_and_what_is_on_its_way_counts_and_what_runs_does_not():
    gate, _ = gate_of(WAITING)
    leaves = [gate.enter("acme", Size(1, 10, 0)) for _ in range(8)]
    followed(gate, waiting=2, inside=8)
    assert asks(gate, 10) is None
    leaves.append(gate.enter("acme", Size(1, 10, 0)))
    assert asks(gate, 10) is None
    leaves.append(gate.enter("acme", Size(1, 10, 0)))
    assert asks(gate, 10) == 10
    assert asks(gate, 10, requests=3) == 10
    for leave in leaves:
        leave()
    followed(gate)
    assert asks(gate, 10) is None
    assert asks(gate, 10, requests=9) is None, "none waits: an idle engine begins with them"


def test_in_doubt_the_engine_is_asked_so_that_an_idle_one_refuses_nobody():
    """Many come between two polls, and each begins at once."""
    server = started(WAITING)
    server.poll()
    codes = [server.send(vllm_xargs=MINE).status_code for _ in range(12)]
    assert codes == [OK] * 12


def test_a_flood_at_once_is_held_to_the_quota():
    server = started(WAITING)
    server.poll()
    replies = server.send_at_once(20, vllm_xargs=MINE)
    assert sorted(reply.status_code for reply in replies) == [OK] * 4 + [429] * 16
    assert {reply.headers["retry-after"] for reply in replies if reply.status_code != OK} == {"10"}
    assert server.send(vllm_xargs=MINE).status_code == OK, "they were answered"


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"prompt": [1, 2, 3], "max_tokens": 7}, Size(1, 3, 7)),
        ({"prompt": [[1, 2], [3]], "n": 2, "max_tokens": 7}, Size(4, 3, 7)),
        ({"token_ids": [1] * 9, "sampling_params": {"max_tokens": 5, "n": 3}}, Size(3, 9, 5)),
        ({"messages": [], "max_completion_tokens": 8, "max_tokens": 9}, Size(1, 15, 8)),
        ({"prompt": "x", "n": -1, "max_tokens": "9"}, Size(1, 10, 9)),
        ({"prompt": [1], "n": "50", "max_tokens": 9.0}, Size(50, 1, 9)),
        ({"prompt": [1], "n": 1.5, "max_tokens": "x"}, Size(1, 1, 0)),
        ({"n": 10**9, "max_tokens": True}, Size(10**6, 9, 1)),
        ([], Size(1, 1, 0)),
        (None, Size(1, 1, 0)),
    ],
)
def test_the_size_of_a_request_is_read_from_its_body(body, size):
    from serving.plugin.bodies import size_of

    assert size_of(body, json.dumps(body).encode()) == size


# -- a change, seen by the API server ------------------------------------------------------


def test_a_change_reaches_the_server_that_took_it_at_once_and_others_with_the_next_poll():
    server = started(Contract(believe_clients=True))
    other = server.another()
    assert server.send(vllm_xargs=MINE).status_code == OK
    change = encode(ContractChange(KEYS, 1, "test"))
    reply = server.send(path="/hmas/contract", headers=TOKEN, json=change)
    assert reply.json()["ranks"][0]["changes"][0] == "believe_clients: true -> false"
    assert server.send(vllm_xargs=MINE).status_code == httpx.codes.UNAUTHORIZED
    assert other.send(vllm_xargs=MINE).status_code == OK
    other.poll()
    assert other.send(vllm_xargs=MINE).status_code == httpx.codes.UNAUTHORIZED
    shown = server.get("/hmas/contract", headers=TOKEN)
    assert "sha256" not in shown.text
    (held,) = shown.json()["ranks"]
    assert (held["epoch"], held["by"], held["keys"]) == (1, "test", {"acme": 2, "bulk": 1})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"contract": {"tenants": {"a": {"wieght": 1}}}, "epoch": 1}, "tenants.a.wieght"),
        ({"contract": {"tenants": {"a": {"floor": 2}}}, "epoch": 1}, "tenants.a.floor"),
        ({"contract": {"default_class": "gold"}, "epoch": 1}, "default_class: unknown SLO class"),
        ({"contract": {"tenants": {"other": {}}}, "epoch": 1}, "tenants.other: 'other' stands for"),
        ({"contract": {}}, "ContractChange.epoch"),
        ({"contract": 7, "epoch": 1}, "ContractChange.contract"),
    ],
)
def test_a_broken_contract_is_400_names_the_key_and_leaves_the_old_one(change, named):
    contract = Contract(classes={"gold": ClassTerms(ttft_ms=9.0)})
    server = started(contract)
    reply = server.send(path="/hmas/contract", headers=TOKEN, json=change)
    assert reply.status_code == httpx.codes.BAD_REQUEST
    assert named in reply.json()["detail"]
    assert server.engine.contract().epoch == 0
    assert server.engine.contract().contract.slo_of("gold") == contract.slo_of("gold")


def test_requests_pass_unread_where_the_contract_asks_nothing(monkeypatch):
    import serving.plugin.admission as admission

    monkeypatch.setattr(admission, "read_body", None)
    server = started(Contract(believe_clients=True))
    server.poll()
    assert server.send(vllm_xargs=MINE).status_code == OK


def test_a_vllm_that_would_put_the_gateway_inside_does_not_start():
    server = started(KEYS, gateway="token")
    args = server.app.state.args
    args.middleware = ["serving.plugin.gateway.GatewayMiddleware"]
    asyncio.run(server.endpoints.init_state(None, None, args))
    server.app.user_middleware.reverse()
    with pytest.raises(ContractError, match="a gateway's word would come too late"):
        asyncio.run(server.endpoints.init_state(None, None, args))

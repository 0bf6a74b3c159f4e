"""Do the /hmas/ routes let only the token in, and say what is wrong with a message?"""

import asyncio
import inspect
from argparse import Namespace
from collections.abc import Iterator
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry, generate_latest

from serving.contracts import (
    Ack,
    HistogramCounts,
    JournalPage,
    Snapshot,
    TenantCounters,
    TenantPart,
    Totals,
    decode,
    encode,
)
from serving.perception.latencies import BOUNDS
from serving.plugin import routes
from serving.plugin.engine_methods import hmas_call, install
from serving.plugin.routes import HMASEndpoints
from tests.serving.samples import arrival, decision, outcome
from tests.serving.served_ranks import HEADERS, TOKEN, EngineClient, Hook, served

ROUTES = [("GET", "/hmas/snapshot"), ("GET", "/hmas/journal"), ("GET", "/hmas/inside"),
          ("POST", "/hmas/apply"), ("POST", "/hmas/renew"), ("POST", "/hmas/release"),
          ("POST", "/hmas/stop"), ("POST", "/hmas/start"),
          ("GET", "/hmas/contract"), ("POST", "/hmas/contract")]  # fmt: skip


@pytest.fixture
def engine() -> EngineClient:
    client = EngineClient()
    client.hooks[0].note(arrival(0), outcome(1), arrival(2))
    return client


@pytest.fixture
def registry(monkeypatch) -> CollectorRegistry:
    mine = CollectorRegistry()
    monkeypatch.setattr(routes, "REGISTRY", mine)
    return mine


@pytest.fixture
def client(engine, registry, monkeypatch) -> Iterator[TestClient]:
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    yield from served(engine)


def test_the_plugin_is_what_vllm_asks_for():
    from vllm.plugins.endpoint_plugins.interface import EndpointPlugin

    for method in ("attach_router", "init_state"):
        asked = inspect.signature(getattr(EndpointPlugin, method))
        assert inspect.signature(getattr(HMASEndpoints, method)).parameters.keys() == (
            asked.parameters.keys()
        )
    (endpoints,) = entry_points(group="vllm.endpoint_plugins", name=HMASEndpoints.name)
    assert endpoints.load() is HMASEndpoints
    (engine_side,) = entry_points(group="vllm.general_plugins", name="hmas_engine")
    assert engine_side.load() is install


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN},
     {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer "},
     {"Authorization": "Bearer gehe\xefm".encode("latin-1")}],
    ids=["none", "wrong", "no scheme", "basic", "empty", "not ascii"],
)  # fmt: skip
def test_without_the_right_token_nothing_is_answered_or_done(client, engine, method, path, headers):
    reply = client.request(method, path, headers=headers, json=encode(decision(1)))
    assert reply.status_code == httpx.codes.UNAUTHORIZED
    assert "Authorization: Bearer" in reply.json()["detail"]
    assert TOKEN not in reply.text
    assert engine.hooks[0].engine.applied == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_server_without_a_token_answers_nobody(client, monkeypatch, method, path):
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("HMAS_TOKEN")
        else:
            monkeypatch.setenv("HMAS_TOKEN", value)
        for headers in (HEADERS, {"Authorization": "Bearer "}, {}):
            reply = client.request(method, path, headers=headers)
            assert reply.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert "HMAS_TOKEN is not set" in reply.json()["detail"]


def test_a_decision_goes_in_and_its_effect_comes_out(client):
    reply = client.post("/hmas/apply", headers=HEADERS, json=encode(decision(1, "edf")))
    assert decode(Ack, reply.json()["ranks"][0]) == Ack(True, 1)
    shot = decode(Snapshot, client.get("/hmas/snapshot", headers=HEADERS).json()["ranks"][0])
    assert (shot.policy, shot.epoch, shot.controller_id) == ("edf", 1, "me")
    body = {"controller_id": "me", "ttl_s": 5.0}
    assert client.post("/hmas/renew", headers=HEADERS, json=body).json()["ranks"][0]["accepted"]
    body = {"controller_id": "you"}
    refused = client.post("/hmas/release", headers=HEADERS, json=body)
    assert refused.status_code == httpx.codes.OK, "a refusal is an answer"
    assert not refused.json()["ranks"][0]["accepted"]


def test_the_journal_is_read_from_a_cursor(client):
    reply = client.get("/hmas/journal?cursor=1&limit=1", headers=HEADERS).json()
    assert decode(JournalPage, reply["ranks"][0]) == JournalPage(2, 0, (), (outcome(1),))


@pytest.mark.parametrize("query", ["cursor=-1", "limit=0", "limit=999999999", "cursor=x"])
def test_a_bad_cursor_or_limit_is_refused_by_name(client, query):
    reply = client.get(f"/hmas/journal?{query}", headers=HEADERS)
    assert reply.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert query.split("=")[0] in reply.text


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epoch": "soon"}, "Decision.epoch"),
        ({"limits": {"token_budget": 5}}, "Decision.limits.max_active_requests"),
        ({"more": 1}, "Decision.more"),
    ],
)
def test_a_bad_decision_is_400_and_names_the_key(client, engine, changes, named):
    reply = client.post("/hmas/apply", headers=HEADERS, json={**encode(decision(1)), **changes})
    assert reply.status_code == httpx.codes.BAD_REQUEST
    assert named in reply.json()["detail"]
    assert engine.hooks[0].engine.applied == []


@pytest.mark.parametrize(("path", "body", "key"), [
    ("/hmas/renew", {"controller_id": "me"}, "ttl_s"),
    ("/hmas/renew", {"controller_id": "me", "ttl_s": "long"}, "ttl_s"),
    ("/hmas/renew", {"controller_id": "me", "ttl_s": 5.0, "parts": [1]}, "parts"),
    ("/hmas/release", {}, "controller_id"),
    ("/hmas/apply", [], "body"),
])  # fmt: skip
def test_a_body_that_lacks_a_key_is_refused_by_name(client, path, body, key):
    reply = client.post(path, headers=HEADERS, json=body)
    assert reply.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert key in reply.text


def test_a_dead_engine_is_503_and_the_server_goes_on(client, engine):
    engine.down = True
    reply = client.get("/hmas/snapshot", headers=HEADERS)
    assert reply.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "EngineCore died" in reply.json()["detail"]
    engine.down = False
    assert client.get("/hmas/snapshot", headers=HEADERS).status_code == httpx.codes.OK


def test_before_the_engine_is_up_the_routes_say_so(registry, monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    for client in served(None):
        reply = client.get("/hmas/snapshot", headers=HEADERS)
        assert reply.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "not up" in reply.json()["detail"]


def test_every_data_parallel_rank_is_asked(registry, monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    engine = EngineClient(ranks=3)
    for client in served(engine):
        reply = client.post("/hmas/apply", headers=HEADERS, json=encode(decision(1)))
        assert [rank["epoch"] for rank in reply.json()["ranks"]] == [1, 1, 1]
    assert all(len(hook.engine.applied) == 1 for hook in engine.hooks)


def test_older_vllm_is_asked_core_by_core(registry, monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    hooks = {b"a": Hook(0), b"b": Hook(1)}

    async def call(name: str, *args: Any, engine: bytes) -> dict[str, Any]:
        return hmas_call(SimpleNamespace(scheduler=hooks[engine]), *args)

    core = SimpleNamespace(_call_utility_async=call, core_engines=list(hooks))
    for client in served(SimpleNamespace(engine_core=core)):
        answers = client.get("/hmas/snapshot", headers=HEADERS).json()["ranks"]
        assert [answer["rank"] for answer in answers] == [0, 1]


@pytest.mark.parametrize(
    ("query", "first"),
    [("", [0, 0, 0]), ("cursor=2", [2, 2, 2]), ("cursor=1&cursor=3&cursor=0", [1, 3, 0]),
     ("cursor=3&cursor=1", [3, 1, 0])],
)  # fmt: skip
def test_each_rank_reads_on_from_its_own_cursor(registry, monkeypatch, query, first):
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    engine = EngineClient(ranks=3)
    for hook in engine.hooks:
        hook.note(*(arrival(i) for i in range(4)))
    for client in served(engine):
        pages = client.get(f"/hmas/journal?{query}", headers=HEADERS).json()["ranks"]
        assert [page["arrivals"][0]["seq"] for page in pages] == first


def test_stock_vllm_says_how_to_start_the_hook(client, engine):
    engine.hooks = [object()]
    reply = client.get("/hmas/snapshot", headers=HEADERS)
    assert reply.status_code == httpx.codes.BAD_REQUEST
    assert "vLLM runs object, not the hook" in reply.json()["detail"]
    assert "--scheduler-cls serving.scheduler.hmas_scheduler" in reply.json()["detail"]


def test_the_engine_method_is_installed_on_vllms_engine_core(monkeypatch):
    from vllm.v1.engine.core import EngineCore

    monkeypatch.setattr(EngineCore, "hmas_call", None, raising=False)
    install()
    assert EngineCore.hmas_call is hmas_call
    answer = hmas_call(SimpleNamespace(scheduler=Hook()), "nope", {})
    assert answer == {"error": "unknown method 'nope'"}


def test_the_totals_are_followed_without_anyone_asking_and_survive_a_dead_engine(
    registry, engine, monkeypatch
):
    async def scenario() -> None:
        endpoints = HMASEndpoints()
        await endpoints.init_state(engine, None, Namespace())
        engine.down = True
        for _ in range(20):
            await asyncio.sleep(0)
        assert b"hmas_policy_info{" not in generate_latest(registry), "nothing is known yet"
        engine.down = False
        for _ in range(20):
            await asyncio.sleep(0)
        endpoints.close()

    monkeypatch.setattr(routes, "POLL_S", 0.0)
    asyncio.run(scenario())
    shown = generate_latest(registry)
    assert b'hmas_policy_info{policy="fcfs",rank="0"} 1.0' in shown
    assert b'hmas_rule_total{rank="0",rule="demoted"} 3.0' in shown


def test_the_poll_never_looks_through_the_queue(registry, engine):
    """A snapshot costs a look at each waiting request, and runs in the engine's busy loop."""
    engine.hooks[0].hmas_snapshot = None
    engine.hooks[0].hmas_totals = lambda: Totals(0, 41, "edf", 0.0, 0, 7, 5, ())

    async def scenario() -> None:
        endpoints = HMASEndpoints()
        await endpoints.init_state(engine, None, Namespace())
        for _ in range(5):
            await asyncio.sleep(0)
        endpoints.close()

    asyncio.run(scenario())
    shown = generate_latest(registry)
    assert b'hmas_epoch{rank="0"} 41.0' in shown
    assert b'hmas_waiting_requests{rank="0"} 7.0' in shown


def test_each_of_several_api_servers_shows_the_engines_totals(engine, monkeypatch, tmp_path):
    """vLLM reads /metrics from files then: no collector of ours was shown."""
    from prometheus_client.mmap_dict import MmapedDict, mmap_key
    from vllm.entrypoints.serve.instrumentator.metrics import attach_router

    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for process in (1, 2):  # each API server of vLLM counts its own requests
        file = MmapedDict(str(tmp_path / f"counter_{process}.db"))
        file.write_value(mmap_key("vllm:n", "vllm:n_total", [], [], "requests"), 4.0, 0.0)
    acme = TenantCounters("acme", "batch", received=7)
    bounds = BOUNDS["ttft_seconds"]
    first_tokens = HistogramCounts(
        "ttft_seconds", "acme", "batch", (2, *[0] * len(bounds)), 0.1
    )  # fmt: skip
    engine.hooks[0].hmas_totals = lambda: Totals(
        0, 41, "edf", 0.0, 0, 7, 5, (acme,), {}, histograms=(first_tokens,)
    )
    shown = []
    for _ in range(2):  # API servers on one engine
        for client in served(engine, attach_router):
            for _ in range(50):  # each request gives the first poll a chance to end
                reply = client.get("/metrics", follow_redirects=False)
                if "hmas_epoch{" in reply.text:
                    break
            assert reply.status_code == httpx.codes.OK
            shown.append(reply.text.splitlines())
    labels = 'slo_class="batch",tenant="acme"}'
    for lines in shown:
        assert f"hmas_requests_received_total{{{labels} 7.0" in lines
        assert f'hmas_ttft_seconds_bucket{{le="+Inf",{labels} 2.0' in lines
        assert 'hmas_epoch{rank="0"} 41.0' in lines
        assert "vllm:n_total 8.0" in lines, "vLLM's own are still there"


def test_parts_of_a_fleet_go_in_with_a_renewal_and_wrong_ones_are_named(client, engine):
    client.post("/hmas/apply", headers=HEADERS, json=encode(decision(1, "edf")))
    body = {"controller_id": "me", "ttl_s": 5.0, "parts": {"acme": {"share": 0.5, "limits": 0.2}}}
    assert client.post("/hmas/renew", headers=HEADERS, json=body).json()["ranks"][0]["accepted"]
    assert engine.hooks[0].engine.parts == {"acme": TenantPart(0.5, 0.2)}
    body["parts"] = {"acme": {"weight": 2.0}}
    reply = client.post("/hmas/renew", headers=HEADERS, json=body)
    assert reply.status_code == httpx.codes.BAD_REQUEST
    assert "acme.weight" in reply.json()["detail"]

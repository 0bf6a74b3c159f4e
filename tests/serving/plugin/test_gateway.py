"""Is a gateway believed exactly as far as the configuration says, and does nothing break?"""

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Body, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.contracts import SLO, Contract, with_classes
from serving.contracts.settings import EngineSettings
from serving.perception.attributes import sign_tenant, slo_of, tenant_of
from serving.plugin.gateway import GatewayMiddleware
from serving.plugin.gateway_headers import HEADERS, Claims, rewritten

SECRET = "only-the-gateway-knows"
TOKEN = {"x-hmas-gateway-token": SECRET}
BY_TOKEN = EngineSettings(gateway="token", gateway_objectives={"premium": "interactive"})
ALWAYS = EngineSettings(gateway="always")
OFF = EngineSettings()
CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
OK, BAD = httpx.codes.OK, httpx.codes.BAD_REQUEST


@pytest.fixture(autouse=True)
def _tokens(monkeypatch):
    monkeypatch.setenv("HMAS_TOKEN", "of-the-server")
    monkeypatch.setenv("HMAS_GATEWAY_TOKEN", SECRET)


def server(config: EngineSettings = BY_TOKEN, **options: Any) -> FastAPI:
    """Answers each request with what reached it, with the middleware as vLLM puts it in."""
    app = FastAPI(**options)
    hmas = config.model_dump(mode="json", exclude_defaults=True)
    app.state.args = Namespace(additional_config={"hmas": hmas})

    @app.post("/raw")
    @app.get(CHAT)
    async def raw(request: Request) -> dict[str, Any]:
        body = await request.body()
        return {"headers": dict(request.headers), "text": body.decode("latin-1")}

    @app.post("/v1/completions")
    @app.post("/v1/responses")
    @app.post("/inference/v1/generate")
    @app.post("/hmas/apply")
    @app.post(CHAT)
    async def serve(request: Request, body: dict[str, Any] = Body()) -> Response:  # noqa: B008
        length = request.headers.get("content-length")
        assert length is None or int(length) == len(await request.body())
        return Response(json.dumps({"headers": dict(request.headers), "body": body}))

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json(dict(socket.headers))

    @app.exception_handler(RequestValidationError)
    async def bad_body(request: Request, error: RequestValidationError) -> Response:
        return Response(status_code=BAD)  # as vLLM answers it

    app.add_middleware(GatewayMiddleware)
    return app


def post(
    headers: Any = None, *, config: EngineSettings = BY_TOKEN, path: str = CHAT, app: Any = None,
    **content: Any,
) -> httpx.Response:  # fmt: skip
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app or server(config))
        async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as client:
            return await client.post(path, headers=headers, **content)

    return asyncio.run(send())


def received(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == OK, reply.text
    assert not HEADERS & reply.json()["headers"].keys(), "our headers go no further"
    body: dict[str, Any] = reply.json()["body"]
    return body


def seen(reply: httpx.Response) -> str:
    return json.dumps(reply.json().get("body"))  # a text, because NaN differs from itself


def judged(body: dict[str, Any], config: EngineSettings = BY_TOKEN) -> tuple[str, str, SLO]:
    """What the engine makes of a request: tenant, SLO class, targets."""
    extra = body.get("vllm_xargs") or {}
    return tenant_of(extra, None, config), *slo_of(extra, config)


# -- what headers say -------------------------------------------------------------------


def test_own_headers_name_tenant_class_and_priority():
    said = {"x-hmas-tenant": "acme", "x-hmas-slo-class": "interactive", "x-hmas-priority": "-3"}
    prompt = {"model": "m", "messages": [{"role": "user", "content": "h\u00e9llo \U0001f600"}]}
    body = received(post({**TOKEN, **said}, json=prompt))
    assert judged(body) == ("acme", "interactive", SLO(500, 30))
    assert body["priority"] == -3
    assert {key: body[key] for key in prompt} == prompt, "the rest is as it was sent"


@pytest.mark.parametrize("family", ["x-llm-d-inference", "x-gateway-inference"])
def test_the_endpoint_pickers_headers_name_tenant_and_objective(family):
    said = {f"{family}-fairness-id": "acme", f"{family}-objective": "premium"}
    assert judged(received(post({**TOKEN, **said}, json={}))) == (
        "acme", "interactive", SLO(500, 30),
    )  # fmt: skip
    said[f"{family}-objective"] = "document"
    assert judged(received(post({**TOKEN, **said}, json={})))[1] == "document", "a class's own name"
    said[f"{family}-objective"] = "unheard-of"
    assert judged(received(post({**TOKEN, **said}, json={})))[1] == "batch"


@pytest.mark.parametrize("family", ["x-hmas-slo", "x-llm-d-slo", "x-slo"])
def test_targets_in_milliseconds(family):
    said = {f"{family}-ttft-ms": "250", f"{family}-tpot-ms": "12.5"}
    assert judged(received(post({**TOKEN, **said}, json={})))[1:] == ("custom", SLO(250, 12.5))
    body = received(post({**TOKEN, "x-hmas-slo-e2e-ms": "9000"}, json={}))
    assert judged(body)[2] == SLO(e2e_ms=9000)


def test_own_headers_go_before_the_endpoint_pickers():
    said = {"x-gateway-inference-fairness-id": "b", "x-hmas-tenant": "a",
            "x-gateway-inference-objective": "premium", "x-hmas-slo-class": "document"}  # fmt: skip
    assert judged(received(post({**TOKEN, **said}, json={})))[:2] == ("a", "document")


def test_the_last_of_equal_headers_counts_because_proxies_append():
    said = [*TOKEN.items(), ("x-hmas-tenant", "the client's"), ("X-HMAS-Tenant", "the gateway's")]
    assert judged(received(post(said, json={})))[0] == "the gateway's"


def test_the_gateways_slo_replaces_all_of_the_clients():
    mine = {"vllm_xargs": {"slo_ttft_ms": 1, "slo_e2e_ms": 2, "slo_class": "interactive", "k": 7}}
    body = received(post({**TOKEN, "x-hmas-slo-class": "batch"}, json=mine))
    assert body["vllm_xargs"] == {"slo_class": "batch", "k": 7}
    body = received(post({**TOKEN, "x-hmas-tenant": "acme"}, json=mine))
    assert judged(body)[1:] == ("custom", SLO(1, None, 2)), "no word on it: the client's stays"


@pytest.mark.parametrize(("said", "priority"), [
    ("7", 7), ("1e3", None), ("", None), ("x", None), ("9" * 30, 2**63 - 1),
    ("-" + "9" * 30, -(2**63)), ("9" * 5000, None),
])  # fmt: skip
def test_a_priority_is_an_int64_and_goes_before_vllms_own_header(said, priority):
    reply = post({**TOKEN, "x-hmas-priority": said, "x-vllm-priority": "-99"}, json={})
    assert received(reply).get("priority") == priority
    assert ("x-vllm-priority" in reply.json()["headers"]) == (priority is None)


def test_routes_with_sampling_parameters_get_them_there():
    path, sampling = "/inference/v1/generate", {"temperature": 0.5}
    said = {**TOKEN, "x-hmas-tenant": "acme"}
    body = received(post(said, path=path, json={"sampling_params": sampling}))
    assert body["sampling_params"]["temperature"] == 0.5
    assert tenant_of(body["sampling_params"]["extra_args"], None, BY_TOKEN) == "acme"
    assert received(post(said, path=path, json={"token_ids": []})) == {"token_ids": []}


# -- who is believed --------------------------------------------------------------------

CLAIM = {"x-hmas-tenant": "victim", "x-hmas-slo-ttft-ms": "1", "x-hmas-priority": "-9"}


@pytest.mark.parametrize("config", [OFF, BY_TOKEN], ids=["off", "token"])
@pytest.mark.parametrize("token", [
    {}, {"x-hmas-gateway-token": "guess"}, {"x-hmas-gateway-token": ""},
    {"x-hmas-gateway-token": SECRET[:-1]}, [("x-hmas-gateway-token", b"\xff\xfe")],
])  # fmt: skip
def test_without_the_token_headers_change_nothing(config, token):
    headers = [*CLAIM.items(), *dict(token).items()]
    assert received(post(headers, config=config, json={"a": 1})) == {"a": 1}


def test_a_gateway_that_is_off_does_not_even_believe_the_token():
    assert received(post({**CLAIM, **TOKEN}, config=OFF, json={"a": 1})) == {"a": 1}


def test_always_needs_no_token():
    body = received(post(CLAIM, config=ALWAYS, json={}))
    assert judged(body, ALWAYS) == ("victim", "custom", SLO(1))
    assert body["priority"] == -9


@pytest.mark.parametrize("proof", [None, "", 7, "0" * 64, "of acme", "\ud800", "\u00e9"])
def test_behind_a_gateway_clients_name_no_tenants(proof):
    signed = sign_tenant("acme") if proof == "of acme" else proof
    xargs = {"tenant": "victim", "tenant_proof": signed}
    for path in (CHAT, "/inference/v1/generate"):
        for config in (BY_TOKEN, ALWAYS):
            content = json.dumps({"vllm_xargs": xargs})
            body = received(post(JSON, config=config, path=path, content=content))
            assert judged(body, config)[0] == "default"
    assert tenant_of(xargs, "lora-1", BY_TOKEN) == "lora-1"
    believing = EngineSettings(contract=Contract(believe_clients=True))
    assert tenant_of(xargs, None, believing) == "victim", "if the contract says so"


def test_clients_are_believed_beside_a_gateway_only_if_the_configuration_says_so():
    both = EngineSettings(gateway="token", contract=Contract(believe_clients=True))
    mine = {"vllm_xargs": {"tenant": "mine"}}
    assert judged(received(post({}, config=both, json=mine)), both)[0] == "mine"
    said = {**TOKEN, "x-hmas-tenant": "acme"}
    assert judged(received(post(said, config=both, json=mine)), both)[0] == "acme"


def test_without_the_servers_token_nobody_is_signed_for(monkeypatch):
    monkeypatch.delenv("HMAS_TOKEN")
    assert sign_tenant("acme") == ""
    assert tenant_of({"tenant": "acme", "tenant_proof": ""}, None, BY_TOKEN) == "default"


@settings(deadline=None)
@given(st.text(max_size=100))
def test_a_tenant_that_the_middleware_names_is_the_one_the_engine_sees(name):
    headers = [(b"x-hmas-tenant", name.encode("utf-8", "surrogatepass"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMAS_TOKEN", "of-the-server")
        tenant = judged(received(post(headers, config=ALWAYS, json={})), ALWAYS)[0]
    seen = name.encode("utf-8", "surrogatepass").decode("utf-8", "replace").strip()
    assert tenant == (seen[:64].strip() or "default")


# -- what must not break ----------------------------------------------------------------


def test_a_chunked_body_without_a_length():
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"prompt": "a b c"}':
            yield bytes([byte])

    said = {**TOKEN, **JSON, "x-hmas-tenant": "acme"}
    body = received(post(said, path="/v1/completions", content=chunks()))
    assert (body["prompt"], judged(body)[0]) == ("a b c", "acme")


def test_a_body_of_megabytes():
    image = "A" * 8_000_000
    body = received(post({**TOKEN, "x-hmas-tenant": "acme"}, json={"image": image}))
    assert (len(body["image"]), judged(body)[0]) == (len(image), "acme")


@pytest.mark.parametrize("content", [
    b"", b"{", b"nonsense", b"[1]", b"7", b"null", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 5000,
    b'{"vllm_xargs": []}', b'{"vllm_xargs": "tenant"}', b'{"a": ' * 100_000,
])  # fmt: skip
def test_a_body_that_does_not_fit_reaches_vllm_as_it_is(content):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append((await receive())["body"])

    passed: list[bytes] = []
    middleware = GatewayMiddleware(app)
    scope = {
        "type": "http", "method": "POST", "path": CHAT, "headers": [(b"x-hmas-tenant", b"a")],
        "app": server(ALWAYS),
    }  # fmt: skip
    asyncio.run(middleware(scope, messages({"type": "http.request", "body": content}), answer))
    assert passed == [content]


@pytest.mark.parametrize("path", ["/hmas/apply", "/raw"])
def test_routes_that_serve_no_model_are_left_alone(path):
    reply = post({**TOKEN, **CLAIM}, path=path, json={"a": 1})
    assert reply.json().get("body", {"a": 1}) == {"a": 1}
    assert reply.json().get("text", '{"a":1}') == '{"a":1}'
    assert not HEADERS & reply.json()["headers"].keys()


def test_a_server_below_a_path():
    app = server(root_path="/llm")
    body = received(post({**TOKEN, "x-hmas-tenant": "acme"}, app=app, path=f"/llm{CHAT}", json={}))
    assert judged(body)[0] == "acme"


def test_get_websocket_and_lifespan_work_and_get_no_headers():
    with TestClient(server()) as client:
        reply = client.get(CHAT, headers={**TOKEN, **CLAIM, "x-other": "1"})
        assert reply.json()["headers"]["x-other"] == "1"
        assert not HEADERS & reply.json()["headers"].keys()
        with client.websocket_connect("/v1/realtime", headers={**TOKEN, **CLAIM}) as socket:
            assert not HEADERS & socket.receive_json().keys()


def messages(*events: dict[str, Any]) -> Any:
    waiting = list(events)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return receive


async def answer(message: Any) -> None:
    """A client that takes any answer."""


@pytest.mark.parametrize("left_early", [True, False])
def test_a_client_that_leaves_is_noticed(left_early):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await receive())
        if seen[-1]["type"] == "http.request":  # as a streaming answer watches its client
            seen.append(await receive())

    middleware = GatewayMiddleware(app)
    scope = {
        "type": "http", "method": "POST", "path": CHAT, "headers": [(b"x-hmas-tenant", b"a")],
        "app": server(ALWAYS),
    }  # fmt: skip
    part = {"type": "http.request", "body": b'{"a": 1', "more_body": True}
    rest = {"type": "http.request", "body": b"}"}
    gone = {"type": "http.disconnect"}
    events: list[dict[str, Any]] = [part, gone] if left_early else [part, rest, gone]
    asyncio.run(middleware(scope, messages(*events), answer))
    assert seen[-1] == gone
    if not left_early:
        assert json.loads(seen[0]["body"])["vllm_xargs"]["tenant"] == "a"


@pytest.mark.parametrize(("variable", "config"), [
    ("HMAS_GATEWAY_TOKEN", BY_TOKEN), ("HMAS_TOKEN", BY_TOKEN), ("HMAS_TOKEN", ALWAYS),
])  # fmt: skip
def test_a_server_that_could_not_believe_its_gateway_does_not_start(variable, config, monkeypatch):
    monkeypatch.delenv(variable)
    sent: list[Any] = []

    async def note(message: Any) -> None:
        sent.append(message)

    start = messages({"type": "lifespan.startup"})
    asyncio.run(server(config)({"type": "lifespan"}, start, note))
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert f"needs {variable}" in sent[0]["message"]
    # and where nobody sends lifespan events, headers are ignored
    assert received(post({**TOKEN, **CLAIM}, config=config, json={"a": 1})) == {"a": 1}


def test_an_objective_must_lead_to_a_class_that_there_is():
    with pytest.raises(ValueError, match="'premium' leads to the unknown SLO class 'gold'"):
        EngineSettings(gateway_objectives={"premium": "gold"})
    gold = with_classes({"gold": SLO(100, 10)})
    own = EngineSettings(gateway_objectives={"p": "gold"}, contract=gold)
    assert own.slo_of("gold") == SLO(100, 10)


names = st.sampled_from(sorted(HEADERS)) | st.from_regex(r"[a-z][a-z-]{0,9}", fullmatch=True)
values = st.binary(max_size=40) | st.sampled_from([SECRET.encode(), b"1e999", b"nan", b"-0", b"7"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["vllm_xargs", "tenant", "priority"]), inner, max_size=3), max_leaves=8,
)  # fmt: skip
bodies = st.binary(max_size=60) | trees.map(lambda tree: json.dumps(tree).encode())
APPS = [server(config) for config in (OFF, BY_TOKEN, ALWAYS)]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(names, values), max_size=6), bodies, st.sampled_from(APPS),
    st.sampled_from([CHAT, "/v1/completions", "/inference/v1/generate", "/raw", "/nowhere"]),
)  # fmt: skip
def test_nothing_that_a_client_sends_breaks_the_server(headers, body, app, path):
    sent = [(b"content-type", b"application/json"), *((n.encode(), v) for n, v in headers)]
    reply = post(sent, app=app, path=path, content=body)
    assert reply.status_code < httpx.codes.INTERNAL_SERVER_ERROR
    with_token = (b"x-hmas-gateway-token", SECRET.encode()) in sent
    believes = app is APPS[2] or (app is APPS[1] and with_token)
    if not believes:
        plain = post(JSON, app=app, path=path, content=body)
        assert plain.status_code == reply.status_code
        assert plain.status_code != OK or seen(plain) == seen(reply)


@settings(deadline=None)
@given(trees)
def test_a_rewritten_body_holds_everything_it_held(tree):
    body = json.dumps({"x": tree, "vllm_xargs": {"y": tree}}).encode()
    after = json.loads(rewritten(body, Claims("acme", {}, None), ("vllm_xargs",)))
    assert after["vllm_xargs"].pop("tenant") == "acme"
    del after["vllm_xargs"]["tenant_proof"]
    assert json.dumps(after) == body.decode()

"""An API server end to end, without a socket: the real plugin, middleware and scheduler."""

import asyncio
from argparse import Namespace
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi import Body, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from vllm.v1.serial_utils import MsgpackEncoder

from serving.contracts import Decision, Limits
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.plugin.admission_gate import AdmissionGate
from serving.plugin.engine_methods import hmas_call
from serving.plugin.gateway import GatewayMiddleware
from serving.plugin.routes import HMASEndpoints
from tests.serving.samples import profile

CHAT = "/v1/chat/completions"
OK, BAD = httpx.codes.OK, httpx.codes.BAD_REQUEST


class ApiServer:
    """The plugin with its middleware, the gateway's, and the hook of a simulated engine."""

    def __init__(self, settings: EngineSettings, engine: SimulatedEngine | None = None) -> None:
        self.settings = settings
        self.engine = engine or SimulatedEngine(profile(), settings)
        if engine is None:
            self.engine.scheduler.hmas_apply(self.decision(0.0))
        self.endpoints, self.served = HMASEndpoints(), list[dict[str, Any]]()
        self.endpoints.client = SimpleNamespace(engine_core=self)
        self.down = False
        self.app = FastAPI()
        extra = {"hmas": settings.model_dump(mode="json", exclude_defaults=True)}
        self.app.state.args = Namespace(additional_config=extra)
        self.endpoints.attach_router(self.app)

        self.held: asyncio.Event | None = None  # answers wait for it

        @self.app.post(CHAT)
        async def serve(body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
            self.served.append(body)
            if self.held is not None:
                await self.held.wait()
            return body

        @self.app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {}

        @self.app.exception_handler(RequestValidationError)
        async def bad_body(request: Request, error: RequestValidationError) -> Response:
            return Response(status_code=BAD)  # as vLLM answers it

        self.app.add_middleware(GatewayMiddleware)

    def another(self) -> "ApiServer":
        """A second API server before the same engine."""
        return ApiServer(self.settings, self.engine)

    @property
    def gate(self) -> AdmissionGate:
        gate: AdmissionGate = self.app.state.hmas_gate
        return gate

    def decision(self, share: float) -> Decision:
        limits = Limits(8, 512, shed=share)
        return Decision("me", self.engine.snapshot().epoch + 1, 60.0, "edf", {}, limits)

    async def call_utility_all_async(self, name: str, *args: Any) -> list[dict[str, Any]]:
        if self.down:
            raise RuntimeError("EngineCore died")
        MsgpackEncoder().encode(args)  # as vLLM sends it
        return [hmas_call(SimpleNamespace(scheduler=self.engine.scheduler), *args)]

    def shed(self, share: float) -> None:
        assert self.engine.apply(self.decision(share)).accepted
        self.poll()

    def poll(self) -> None:
        asyncio.run(self.endpoints.follow())

    def post(self, slo_class: str, path: str = CHAT, **more: Any) -> httpx.Response:
        body = {"vllm_xargs": {"tenant": "acme", "slo_class": slo_class}, "max_tokens": 5}
        return self._request("POST", path, **{"json": body, **more})

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self._request("GET", path, **more)

    def send(
        self, path: str = CHAT, headers: Any = None, json: Any = None, **body: Any
    ) -> httpx.Response:
        """A chat request, of which `body` says more; or `json` as it is."""
        json = {"messages": [], **body} if json is None else json
        return self._request("POST", path, headers=headers, json=json)

    def send_at_once(self, count: int, **body: Any) -> list[httpx.Response]:
        """So many chat requests, none of them answered before all are let in or refused."""

        async def send() -> list[httpx.Response]:
            self.held = asyncio.Event()
            async with self._client() as client:
                sent = {"messages": [], **body}
                tasks = [asyncio.create_task(client.post(CHAT, json=sent)) for _ in range(count)]
                while len(self.served) + sum(task.done() for task in tasks) < count:
                    await asyncio.sleep(0)
                self.held.set()
                return await asyncio.gather(*tasks)

        replies = asyncio.run(send())
        self.held = None
        return replies

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://vllm")

    def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with self._client() as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

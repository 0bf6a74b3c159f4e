"""How does a controller reach the engine? HTTP routes under /hmas/ of vLLM's API server.

Entry point `vllm.endpoint_plugins: hmas` (loaded only when VLLM_PLUGINS names it).
Every route wants `Authorization: Bearer TOKEN`, TOKEN being HMAS_TOKEN of the server,
reaches every data-parallel rank and answers `{"ranks": [...]}`, one message per rank.
"""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import time
from argparse import Namespace
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, HTTPException, Query, Request
from prometheus_client import REGISTRY, CollectorRegistry
from pydantic import Field

from serving.compat import call_every_core, mark_ended_answers
from serving.contracts import ContractError, ContractInForce, decode
from serving.contracts.in_force import check_api_server, fingerprint
from serving.contracts.settings import EngineSettings
from serving.plugin.admission import AdmissionMiddleware
from serving.plugin.admission_gate import PAGE, AdmissionGate
from serving.plugin.gateway import GatewayMiddleware
from serving.plugin.metrics import TenantCollector, take_over_metrics

logger = logging.getLogger("vllm.hmas")
POLL_S = 1.0
_REFRESH_S = 0.02  # between two questions in doubt about a quota
_MAX_EVENTS = _MAX_INSIDE = 20_000
Who = Annotated[str, Body(embed=True, min_length=1, max_length=200)]
Why = Annotated[str, Body(embed=True, max_length=200)]


def check_token(request: Request) -> None:
    """Refuse a call without the server's token (401), or any call to a server without one (503)."""
    expected = os.environ.get("HMAS_TOKEN", "")
    if not expected:
        raise HTTPException(503, "HMAS_TOKEN is not set where vLLM was started: /hmas/ is closed")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), expected.encode()):
        raise HTTPException(401, "missing or wrong token: send Authorization: Bearer HMAS_TOKEN")


class HMASEndpoints:
    """vLLM's EndpointPlugin: routes, and the tenant metrics on vLLM's /metrics.

    Attributes:
        client: vLLM's engine client; None until the engine is up.
    """

    name = "hmas"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self.client: Any = None
        self._app: FastAPI | None = None
        self._collector = TenantCollector()
        self._registry: CollectorRegistry = REGISTRY
        self._poller: asyncio.Task[None] | None = None
        self._gate = AdmissionGate()
        self._gate.refresh = self._refresh
        self._asking: asyncio.Task[None] | None = None
        self._asked_s = -math.inf
        self._said = set[str]()
        self._following = asyncio.Lock()  # what ended before a question is settled by its answer

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes, which answer 503 until the engine is up, and the gate of admission.

        vLLM adds the middleware of its command line later, so that the gateway's is outside.
        """
        app.state.hmas_gate, self._app = self._gate, app
        app.add_middleware(AdmissionMiddleware, gate=self._gate)
        self._registry = take_over_metrics(app) or self._registry
        router = APIRouter(prefix="/hmas", dependencies=[Depends(check_token)])
        empty: dict[str, Any] = {}

        @router.get("/snapshot")
        async def snapshot() -> dict[str, Any]:
            return await self._call("snapshot", empty)

        @router.get("/journal")
        async def journal(
            cursor: Annotated[list[Annotated[int, Field(ge=0)]], Query()] = [0],  # noqa: B006
            limit: int = Query(5000, ge=1, le=_MAX_EVENTS),
        ) -> dict[str, Any]:
            return await self._call("journal", {"cursors": cursor, "limit": limit})

        @router.get("/inside")
        async def inside(limit: int = Query(5000, ge=1, le=_MAX_INSIDE)) -> dict[str, Any]:
            return await self._call("inside", {"limit": limit})

        @router.post("/apply")
        async def apply(decision: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
            return await self._call("apply", decision)

        @router.post("/renew")
        async def renew(
            controller_id: str = Body(), ttl_s: float = Body(),
            parts: dict[str, Any] | None = Body(None),  # noqa: B008
        ) -> dict[str, Any]:
            asked = {"controller_id": controller_id, "ttl_s": ttl_s, "parts": parts}
            return await self._call("renew", asked)

        @router.post("/release")
        async def release(controller_id: str = Body(embed=True)) -> dict[str, Any]:
            return await self._call("release", {"controller_id": controller_id})

        @router.post("/stop")
        async def stop(by: Who, reason: Why = "") -> dict[str, Any]:
            answer = await self._call("stop", {"by": by, "reason": reason})
            with contextlib.suppress(HTTPException):  # shedding ends at once
                await self.follow()
            return answer

        @router.post("/start")
        async def start(by: Who) -> dict[str, Any]:
            return await self._call("start", {"by": by})

        @router.get("/contract")
        async def contract() -> dict[str, Any]:
            return await self._call("contract", empty)

        @router.post("/contract")
        async def apply_contract(change: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
            answer = await self._call("apply_contract", change)
            with contextlib.suppress(HTTPException):  # the other API servers follow in a second
                await self.follow()
            return answer

        app.include_router(router)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:  # noqa: ARG002
        """Remember the engine client and start following the tenant totals.

        Raises:
            ContractError: what was meant at start-up is not in force; vLLM does not start then.
        """
        self.client = engine_client
        settings = check_api_server(args)
        self._gate.go_by(settings)
        self._check_order()
        if engine_client is not None:
            await self._check_cores(settings)
            if not mark_ended_answers(engine_client):
                logger.warning(
                    "this vLLM does not tell answers that end on a stop string from clients that "
                    "leave: both count as aborted"
                )
            self._registry.register(self._collector)
            self._poller = asyncio.create_task(self.poll())

    def close(self) -> None:
        """Stop following the engine."""
        if self._poller is not None:
            self._poller.cancel()

    def _check_order(self) -> None:
        # A gateway's headers must be read before anyone asks whose a request is.
        order: list[Any] = [each.cls for each in self._app.user_middleware] if self._app else []
        if order and GatewayMiddleware in order[order.index(AdmissionMiddleware) :]:
            raise ContractError(
                "H-MAS does not start: this vLLM puts the gateway's middleware inside the one that "
                "admits, so a gateway's word would come too late; take another vLLM"
            )

    async def _check_cores(self, settings: EngineSettings) -> None:
        try:
            ranks = (await self._call("settings", {}))["ranks"]
        except HTTPException as error:
            raise ContractError(f"H-MAS does not start: {error.detail}") from error
        for rank in ranks:
            if rank["fingerprint"] != fingerprint(settings):
                raise ContractError(
                    f"H-MAS does not start: engine core {rank['rank']} has other settings under "
                    '"hmas" of --additional-config than this API server, or another HMAS_TOKEN'
                )

    async def _call(self, method: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Ask every engine core; 400 for a bad message, 503 when the engine is gone."""
        core = getattr(self.client, "engine_core", None)
        if core is None:
            raise HTTPException(503, "the engine is not up")
        try:
            ranks = await call_every_core(core, "hmas_call", method, payload)
        except Exception as error:
            raise HTTPException(503, f"the engine did not answer: {error}") from error
        for answer in ranks:
            if "error" in answer:
                raise HTTPException(400, answer["error"])
        return {"ranks": ranks}

    async def poll(self) -> None:
        """Follow the engine for ever, whatever comes of it."""
        while True:
            try:
                await self.follow()
            except HTTPException:  # the engine is gone: the last totals stay
                pass
            except Exception as error:  # noqa: BLE001  without a poll nothing is known any more
                self._say_once("the engine's totals cannot be read: %r", error)
            await asyncio.sleep(POLL_S)

    async def _refresh(self) -> None:
        """The engine's totals as of a question that is asked from now on, or soon."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_soon())
        await asyncio.shield(self._asking)

    async def _ask_soon(self) -> None:
        try:
            await asyncio.sleep(max(0.0, self._asked_s + _REFRESH_S - time.monotonic()))
        finally:
            self._asking = None  # who comes now waits for the next answer
        self._asked_s = time.monotonic()
        with contextlib.suppress(HTTPException):  # the engine is gone: by what is known then
            await self.follow({"light": True})

    async def follow(self, how: Mapping[str, bool] = MappingProxyType({})) -> None:
        """Tell the engine what the gate has refused, and take over totals and contract.

        `how`: with `light` the engine leaves the histograms out, and metrics stay as they are.
        """
        async with self._following:
            await self._exchange(how)

    async def _exchange(self, how: Mapping[str, bool]) -> None:
        more = True
        while more:
            untold = self._gate.take_untold()
            totals = await self._tell(untold, how)
            if not how:
                self._collector.update(totals)
            await self._follow_contract(totals)
            self._gate.follow(totals)
            # What is refused meanwhile can wait for the next poll.
            more = len(untold.get("refused", ())) == PAGE

    async def _follow_contract(self, totals: list[dict[str, Any]]) -> None:
        newest = max((rank["contract_epoch"] for rank in totals), default=0)
        if newest != self._gate.epoch and self._gate.settings is not None:
            ranks = (await self._call("contract_with_keys", {}))["ranks"]
            held = max((decode(ContractInForce, one) for one in ranks), key=lambda one: one.epoch)
            self._gate.go_by(self._gate.settings.under(held.contract), held.epoch)

    async def _tell(self, untold: dict[str, Any], how: Mapping[str, bool]) -> list[dict[str, Any]]:
        """The totals, asked with a page of refusals. One that does not get through is dropped."""
        try:
            return (await self._call("totals", {**untold, **how}))["ranks"]  # type: ignore[no-any-return]
        except HTTPException as error:
            if not untold:
                raise
            try:
                totals = (await self._call("totals", {**how}))["ranks"]
            except HTTPException:  # it is the engine that is gone
                self._gate.put_back(untold)
                raise
            self._say_once("some refusals are not counted: %s", error.detail)
            return totals  # type: ignore[no-any-return]

    def _say_once(self, message: str, *args: Any) -> None:
        if message not in self._said:
            self._said.add(message)
            logger.error("H-MAS: " + message + " (said once)", *args)

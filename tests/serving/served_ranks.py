"""How do the tests reach fake ranks through the real /hmas/ routes? No socket, no vLLM server."""

from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.contracts import Arrival, JournalPage, Outcome, Snapshot, Totals
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine
from serving.perception.accounting import Accounting
from serving.plugin.engine_methods import hmas_call
from serving.plugin.routes import HMASEndpoints
from tests.fakes import FakeEngine

TOKEN = "let-me-in"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Hook:
    """The hook's methods on one rank: a fake engine with the real journal."""

    def __init__(self, rank: int = 0, journal_size: int = 1000) -> None:
        self.parallel_config = SimpleNamespace(data_parallel_index=rank)
        self.settings = EngineSettings()
        self.engine = FakeEngine()
        self.journal = Accounting(journal_size, max_tenants=8)
        self.hmas_apply = self.engine.apply
        self.hmas_renew = self.engine.renew
        self.hmas_release = self.engine.release
        self.hmas_stop, self.hmas_start = self.engine.stop, self.engine.start
        self.hmas_inside = self.engine.inside
        self.hmas_contract = self.engine.contract
        self.hmas_apply_contract = self.engine.apply_contract
        self.rank = rank

    def note(self, *events: Arrival | Outcome) -> None:
        """Events of the journal, numbered anew."""
        for event in events:
            self.journal.append(replace(event, seq=self.journal.head))

    def hmas_snapshot(self) -> Snapshot:
        return replace(self.engine.snapshot(), rank=self.rank, journal_head=self.journal.head)

    def hmas_journal(self, cursor: int, limit: int) -> JournalPage:
        return self.journal.page(cursor, limit)

    def hmas_totals(self) -> Totals:
        shot = self.hmas_snapshot()
        return Totals(
            shot.rank, shot.epoch, shot.policy, shot.lease_left_s, 0, shot.queue.waiting,
            shot.batch.running, shot.counters, {"demoted": 3},
            contract_epoch=shot.contract_epoch, parts=dict(self.engine.parts),
        )  # fmt: skip


class EngineClient:
    """vLLM's engine client, as much of it as the routes use; `ranks` engine cores."""

    def __init__(self, ranks: int = 1) -> None:
        self.hooks: list[Any] = [Hook(rank) for rank in range(ranks)]
        self.down = False
        self.engine_core: Any = self

    async def call_utility_all_async(self, name: str, *args: Any) -> list[dict[str, Any]]:
        assert name == "hmas_call"
        if self.down:
            raise RuntimeError("EngineCore died")
        return [hmas_call(SimpleNamespace(scheduler=hook), *args) for hook in self.hooks]


def served(
    engine: Any, attach_others: Callable[[FastAPI], None] = lambda app: None
) -> Iterator[TestClient]:
    """An API server with the plugin, and with other routes before, in front of `engine`."""
    endpoints = HMASEndpoints()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await endpoints.init_state(engine, app.state, Namespace())
        yield
        endpoints.close()

    app = FastAPI(lifespan=lifespan)
    attach_others(app)
    endpoints.attach_router(app)
    with TestClient(app) as client:
        yield client


@contextmanager
def live_engine(client: EngineClient) -> Iterator[LiveEngine]:
    """A LiveEngine on those ranks; HMAS_TOKEN must be TOKEN."""
    for http in served(client):
        engine = LiveEngine("http://testserver", TOKEN)
        engine.close()
        http.headers.update(HEADERS)
        in_process: Any = http
        engine._client = in_process
        yield engine

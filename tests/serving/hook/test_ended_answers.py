"""Does the engine learn that an answer ended on a stop string, which vLLM tells it as an abort?"""

import asyncio
from types import SimpleNamespace

import pytest

from serving.compat import mark_ended_answers
from tests.serving.driven_scheduler import machine
from tests.serving.shaped_scheduler import Shaped

ADD, ABORT = SimpleNamespace(name="ADD"), SimpleNamespace(name="ABORT")


class Client:
    """As much of vLLM's engine client as is wrapped; it aborts in the engine at once."""

    def __init__(self, engine: Shaped) -> None:
        self.engine = engine
        self.found: list[str] = []  # requests whose text has a stop string now
        self.output_processor = SimpleNamespace(process_outputs=self.process)
        self.engine_core = SimpleNamespace(_send_input=self.send)

    def process(self, outputs: list[object]) -> SimpleNamespace:
        return SimpleNamespace(reqs_to_abort=self.found)

    async def send(self, kind: SimpleNamespace, names: list[str], engine: str = "") -> None:
        if kind is ABORT:
            self.engine.abort(*names)

    def stop(self, *names: str) -> None:
        """The API server finds stop strings and aborts, as vLLM's output handler does."""
        self.found = list(names)
        self.output_processor.process_outputs([])
        asyncio.run(self.engine_core._send_input(ABORT, self.found, "rank"))

    def leave(self, name: str) -> None:
        asyncio.run(self.engine_core._send_input(ABORT, [name]))


@pytest.fixture
def engine() -> Shaped:
    engine = Shaped(profile=machine(200, 8, 16))
    for name in ("stops", "leaves", "slow"):
        engine.add(name, 6, 30, slo_ttft_ms=100, slo_tpot_ms=10 if name == "slow" else 30)
    engine.add("waits", 6, 30, grammar=True, slo_ttft_ms=60_000)
    engine.step(8)
    return engine


def test_a_stop_string_is_told_from_a_client_that_left(engine):
    client = Client(engine)
    assert mark_ended_answers(client)
    client.stop("stops", "slow")
    client.leave("leaves")
    client.leave("waits")
    left = {name: (one.finish, one.miss) for name, one in engine.outcomes().items()}
    assert left == {
        "stops": ("stop", ""), "slow": ("stop", "tpot"), "leaves": ("aborted", ""),
        "waits": ("aborted", ""),
    }  # fmt: skip
    assert {name for name, one in engine.outcomes().items() if one.met} == {"stops", "leaves"}
    (row,) = engine.scheduler.hmas_snapshot().counters
    assert (row.received, row.finished, row.aborted, row.withdrawn) == (4, 2, 2, 1)
    assert (row.met, row.judged) == (2, 3)
    engine.drain()


def test_an_engine_that_is_not_told_judges_by_what_was_met(engine):
    engine.abort("stops", "slow", "leaves", "waits")
    outcomes = engine.outcomes()
    assert [outcomes[name].met for name in ("stops", "slow", "leaves", "waits")] == [
        True, False, True, False,
    ]  # fmt: skip
    assert {outcome.finish for outcome in outcomes.values()} == {"aborted"}


def test_a_client_without_these_places_is_left_alone():
    assert not mark_ended_answers(SimpleNamespace(engine_core=object()))

"""The end of a controller: nothing outlives it, and the ledger closes after its last user."""

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graphs.control_loop import ControlLoop
from hmas_agents.config import load_config
from hmas_agents.ledger import LedgerReader
from hmas_agents.records import DecisionRecord
from hmas_agents.twin.process import TwinProcess, WorkerLostError
from serving.contracts import ResidentPage
from tests.agents.model_server import serving
from tests.fakes import FakeEngine
from tests.graphs.fake_loop import serve
from tests.graphs.test_control_loop import Running

SOON_S = 60.0  # of waits that end at once where all is well
QUICK = {
    "control.mode": "act", "control.ttl_s": 1e6, "control.short_tick_s": 0.01,
    "control.long_tick_s": 5.0, "model.enabled": False, "twin.enabled": False,
}  # fmt: skip


@contextmanager
def deciding(
    engine: FakeEngine, ledger: Path, began: threading.Event, twin: Any = None, **changes: Any
) -> Iterator[ControlLoop]:
    """A loop whose policy choice has begun something that does not end, and is being stopped."""

    def on_decision(record: DecisionRecord) -> None:
        if record.trigger == "start":
            serve(engine, 80, at_s=engine.now_s)

    config = load_config(None, QUICK | {k.replace("__", "."): v for k, v in changes.items()})
    loop = ControlLoop(engine, config, ledger, on_decision=on_decision, forecaster=twin)
    stop = threading.Event()
    driver = threading.Thread(target=loop.run_forever, args=(stop,))
    driver.start()
    assert began.wait(SOON_S)
    stop.set()
    driver.join()
    yield loop


CHOICE, CALL = "hmas-long-tick", "hmas-model"


def under_way(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def wait_for(name: str) -> None:
    for thread in under_way(name):
        thread.join(SOON_S)


def test_closing_ends_the_wait_for_a_model_that_never_answers(tmp_path, caplog):
    asked = threading.Event()

    def never(_: Any) -> None:
        asked.set()

    with serving(never) as model:
        endless = {"model__enabled": True, "model__base_url": model.url, "model__timeout_s": 1e3,
            "model__max_latency_s": 1e3, "model__name": "small"}  # fmt: skip
        with deciding(Running(), tmp_path / "l.sqlite", asked, **endless) as loop:
            loop.close()
            assert under_way(CHOICE) == []
            wait_for(CALL)
            assert under_way(CALL) == [], "the call is cancelled, not just left behind"
    assert caplog.messages == []
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        assert [row.record.trigger for row in reader.list_decisions()] == ["start"]


class Watched(TwinProcess):
    """Says when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.awaited = threading.Event()

    def wait_ready(self, limit_s: float | None) -> bool:
        self.awaited.set()
        return super().wait_ready(limit_s)


def test_closing_ends_the_wait_for_the_twin_and_no_other_is_started(tmp_path, caplog):
    twin = Watched()
    patient = {"twin__enabled": True, "twin__budget_s": 1e3}
    with deciding(Running(), tmp_path / "l.sqlite", twin.awaited, twin, **patient) as loop:
        loop.close()
        assert under_way(CHOICE) == []
    assert [each.name for each in multiprocessing.active_children()] == []
    assert caplog.messages == []


class Slow(Running):
    """Does not answer what the long horizon asks until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers = threading.Event(), threading.Event()

    def inside(self, limit: int = 5000) -> ResidentPage:
        self.asked.set()
        self.answers.wait(SOON_S)
        return super().inside(limit)


def test_the_ledger_stays_open_for_a_choice_that_waits_for_the_engine(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("graphs.control_loop.LAST_WORDS_S", 0.01)
    engine = Slow()
    with deciding(engine, tmp_path / "l.sqlite", engine.asked) as loop:
        serve(engine, 5, at_s=engine.now_s)
        loop.close()
        assert len(under_way(CHOICE)) == 1
        serve(engine, 5, at_s=engine.now_s)
        engine.answers.set()
        wait_for(CHOICE)
    assert caplog.messages == [], "no write met a closed ledger"
    with LedgerReader(tmp_path / "l.sqlite") as reader:
        assert [row.record.horizon for row in reader.list_decisions()] == ["short"]


def test_a_twin_that_was_closed_never_starts_again():
    process = TwinProcess()
    process.close()
    process.start()
    assert multiprocessing.active_children() == []
    with pytest.raises(WorkerLostError, match="there is no worker"):
        process.wait_ready(None)

"""Does the whole loop hold beside a real vLLM, and when parts of it fail?"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from graphs.control_loop import ControllerConflict, ControlLoop
from hmas_agents.config import load_config
from hmas_agents.ledger import LedgerReader
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.records import DecisionRecord
from serving.engines.live import LiveEngine
from tests.agents.model_server import completion, serving
from tests.graphs.test_stand_by import half_done
from tests.real.conftest import MODEL, RealServer
from tests.real.test_real_engine import send, traffic, wait_for

pytestmark = pytest.mark.real_vllm


@contextmanager
def load_on(server: RealServer, count: int, run_id: str) -> Iterator[None]:
    sender = threading.Thread(target=send, args=(server, traffic(count), run_id))
    sender.start()
    try:
        yield
    finally:
        sender.join()


def start_controller(
    server: RealServer, ledger: Path, *flags: str, mode: str = "act"
) -> subprocess.Popen[bytes]:
    config = ledger.with_suffix(".toml")
    config.write_text(
        "[control]\nshort_tick_s = 0.5\nttl_s = 4.0\n[model]\nenabled = false\n"
        "[twin]\nenabled = false\n"
    )
    arguments = [
        "run", "--url", server.url, "--token-file", str(server.token_file), "--mode",
        mode, "--config", str(config), "--ledger", str(ledger), *flags,
    ]  # fmt: skip
    return subprocess.Popen([str(Path(sys.executable).parent / "hmas"), *arguments])


def test_a_killed_controller_leaves_the_engine_on_its_default(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    controller = start_controller(server, tmp_path / "killed.sqlite")
    try:
        with load_on(server, 60, "killed-"):
            wait_for(lambda: engine.snapshot().policy == "edf")
            os.kill(controller.pid, signal.SIGKILL)
            controller.wait()
            wait_for(lambda: engine.snapshot().controller_id == "", 20)
        after = engine.snapshot()
    finally:
        controller.kill()
    assert after.policy == "fcfs"
    assert not after.limits.follow_slack
    assert after.queue.waiting == after.batch.running == 0


def test_the_next_controller_takes_over_from_a_killed_one_and_marks_what_it_left(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    ledger = tmp_path / "inherited.sqlite"
    dead = start_controller(server, ledger)
    wait_for(lambda: ledger.exists() and holds_decisions(ledger))
    dead.kill()
    dead.wait()
    heir = start_controller(server, ledger)
    try:
        wait_for(lambda: engine.snapshot().controller_id.endswith(f"-{heir.pid}"), 60)
        wait_for(lambda: bool(half_done(ledger)), 20)
    finally:
        heir.send_signal(signal.SIGINT)
        assert heir.wait(timeout=30) == 0
    assert half_done(ledger) == [1]


def test_a_stopped_controller_gives_the_engine_back(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    controller = start_controller(server, tmp_path / "stopped.sqlite")
    wait_for(lambda: engine.snapshot().policy == "edf")
    controller.send_signal(signal.SIGINT)
    assert controller.wait(timeout=30) == 0
    assert engine.snapshot().policy == "fcfs"


def hmas(server: RealServer, ledger: Path, *words: str) -> None:
    """Run a command of a person's, in a process of its own."""
    where = ["--url", server.url, "--token-file", str(server.token_file), "--ledger", str(ledger)]
    command = [str(Path(sys.executable).parent / "hmas"), *words, "--yes", *where]
    subprocess.run(command, check=True, cwd=ledger.parent)


def test_the_kill_switch_keeps_a_running_controller_out_until_start(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    ledger = tmp_path / "stopped.sqlite"
    controller = start_controller(server, ledger)
    try:
        wait_for(lambda: engine.snapshot().policy == "edf")
        hmas(server, ledger, "stop", "--reason", "a trial")
        shot = engine.snapshot()
        assert (shot.policy, shot.controller_id) == ("fcfs", "")
        assert shot.stopped is not None
        assert shot.stopped.reason == "a trial"
        assert not shot.limits.follow_slack
        head = shot.journal_head
        send(server, traffic(12), "halted-")  # some seconds of it, several short ticks
        assert {o.policy for o in engine.journal(head).outcomes} == {"fcfs"}
        assert engine.snapshot().controller_id == ""
        assert controller.poll() is None, "it stands by"
        hmas(server, ledger, "start")
        wait_for(lambda: engine.snapshot().policy == "edf")
        hmas(server, ledger, "pin", "--policy", "sjf")
        shot = engine.snapshot()
        assert (shot.policy, shot.controller_id[:7]) == ("sjf", "person:")
        hmas(server, ledger, "release")
        wait_for(lambda: engine.snapshot().policy == "edf")
    finally:
        engine.start("the test")
        controller.send_signal(signal.SIGINT)
        controller.wait(timeout=30)
    with LedgerReader(ledger) as reader:
        by_hand = [row.record.trigger for row in reader.list_decisions(trigger="person")]
    assert by_hand == ["person,stop", "person,start", "person,pin", "person,release"]


def holds_decisions(ledger: Path) -> bool:
    try:
        with LedgerReader(ledger) as reader:
            return bool(reader.list_decisions())
    except LedgerError:  # the controller is still writing its tables
        return False


def test_advise_mode_records_and_writes_nothing(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    ledger = tmp_path / "advise.sqlite"
    epoch = engine.snapshot().epoch
    controller = start_controller(server, ledger, mode="advise")
    try:
        wait_for(lambda: ledger.exists() and holds_decisions(ledger))
    finally:
        controller.send_signal(signal.SIGINT)
        controller.wait(timeout=30)
    assert engine.snapshot().epoch == epoch


def loop_config(model_url: str, **more: Any) -> Any:
    return load_config(
        None,
        {
            "control.mode": "act", "control.ttl_s": 30.0, "model.base_url": model_url,
            "control.start_policy": "srpt",  # so that the rule table has something to change
            "model.name": MODEL, "twin.enabled": False, **more,
        },
    )  # fmt: skip


def one_long_decision(
    server: RealServer, engine: LiveEngine, ledger: Path, config: Any
) -> DecisionRecord:
    with ControlLoop(engine, config, ledger) as loop:
        loop.short_tick()
        send(server, traffic(12), f"{ledger.stem}-")
        loop.short_tick()
        loop.long_tick()
    with LedgerReader(ledger) as reader:
        return reader.list_decisions(horizon="long")[0].record


def test_the_served_model_decides_through_structured_output(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    config = loop_config(f"{server.url}/v1", **{"model.timeout_s": 60.0})
    record = one_long_decision(server, engine, tmp_path / "model.sqlite", config)
    assert record.faults == []
    assert record.raw_replies
    assert {"model", "rules"} <= {proposal.source for proposal in record.proposals}
    assert len(record.prompt_sha256) == 64
    assert record.prompt_version == 1
    assert record.chosen["ack"]["accepted"]
    assert record.chosen["ack"]["epoch"] == record.epoch_after


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        ("no json at all", "reply_invalid"),
        (
            '{"proposals": [{"policy": "fastest", "reason": "r", "confidence": 1.0}]}',
            "unknown_policy",
        ),
        (None, "model_timeout"),
    ],
)
def test_the_loop_goes_on_by_rules_when_the_model_fails(
    server: RealServer, engine: LiveEngine, tmp_path: Path, reply: str | None, fault: str
) -> None:
    with serving(None if reply is None else completion(reply)) as model:
        limit_s = 1.0 if reply is None else 60.0
        config = loop_config(model.url, **{"model.timeout_s": limit_s})
        record = one_long_decision(server, engine, tmp_path / f"{fault}.sqlite", config)
    assert any(entry.startswith(fault) for entry in record.faults), record.faults
    assert "model" not in {proposal.source for proposal in record.proposals}
    assert "rules" in {proposal.source for proposal in record.proposals}
    assert record.chosen["policy"]


def test_a_second_controller_stops_with_the_owners_name(
    server: RealServer, engine: LiveEngine, tmp_path: Path
) -> None:
    config = loop_config("http://127.0.0.1:9/v1", **{"model.enabled": False})
    with ControlLoop(engine, config, None, controller_id="first") as first:
        first.short_tick()
        second = ControlLoop(engine, config, None, controller_id="second")
        with pytest.raises(ControllerConflict, match="first"):
            second.short_tick()
        second.close()
        assert engine.snapshot().controller_id == "first"
        process = start_controller(server, tmp_path / "second.sqlite", "--no-wait")
        assert process.wait(timeout=60) == 3

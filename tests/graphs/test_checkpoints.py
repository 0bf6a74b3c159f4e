"""Steps of a decision on disk: bounded, never in the way, resumed only while they still fit."""

import dataclasses
import sqlite3
from dataclasses import asdict

import pytest

from graphs.checkpoint_format import DecisionFormat
from graphs.checkpoints import (
    DURABILITY,
    DecisionSaver,
    checkpoints_of,
    config_for,
    open_checkpointer,
    recover,
    thread_of,
)
from graphs.long_horizon import build_long_horizon
from graphs.parts import build_parts
from hmas_agents.config import load_config
from hmas_agents.ledger.writer import to_json
from hmas_agents.records import DecisionRecord, Proposal
from tests.evals.agent_samples import situation
from tests.fakes import FakeEngine
from tests.graphs.test_control_loop import serve
from tests.hmas_agents.samples import record

QUIET = {"model.enabled": False, "twin.enabled": False, "control.ttl_s": 1000.0}
TICK = {"trigger": "tick", "budget_s": None}


class Killed(BaseException):
    """The controller dies here; nothing may catch it."""


class Controller:
    """A long horizon on a fake engine, with its steps kept in `saver`."""

    def __init__(self, engine, saver, mode="act"):
        self.records: list[DecisionRecord] = []
        self.parts = build_parts(
            engine, load_config(None, {**QUIET, "control.mode": mode}), None,
            run_label="", controller_id="hmas", on_decision=self.records.append,
        )  # fmt: skip
        self.graph = build_long_horizon(self.parts)
        self.graph.checkpointer = saver
        self.engine = engine

    def decide(self, at_s, dies_in=""):
        """One long tick; `dies_in` names the node that the controller dies in."""
        self.engine.now_s = at_s
        config = config_for(thread_of(1, at_s))
        if dies_in:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(self.parts.session, "renew", self._die)
                patch.setattr(self.parts.watch, "look", self._late(dies_in))
                with pytest.raises(Killed):
                    self.graph.invoke(TICK, config, durability=DURABILITY)
        else:
            self.graph.invoke(TICK, config, durability=DURABILITY)

    def _die(self):
        raise Killed

    def _late(self, dies_in):
        looks = iter([dies_in == "observe", True])
        look = self.parts.watch.look

        def looking():
            if next(looks):
                raise Killed
            return look()

        return looking


@pytest.fixture
def saver(tmp_path):
    saver = DecisionSaver(tmp_path / "l.sqlite.checkpoints", kept=3)
    yield saver
    saver.close()


def threads(saver):
    rows = saver.conn.execute("SELECT DISTINCT thread_id FROM checkpoints ORDER BY 1")
    return [row[0] for row in rows]


def test_every_step_of_a_decision_is_there_with_all_it_knew(saver):
    controller = Controller(FakeEngine(), saver)
    controller.decide(60.0)
    (made,) = controller.records
    history = list(controller.graph.get_state_history(config_for(thread_of(1, 60.0))))
    assert [each.next for each in reversed(history)] == [
        ("__start__",), ("observe",), ("summarise",), ("propose",), ("verify",), ("act",),
        ("write_record",), (),
    ]  # fmt: skip
    assert to_json(asdict(history[0].values["record"])) == to_json(asdict(made))
    asked = next(each for each in history if each.next == ("verify",)).values
    assert [proposal.source for proposal in asked["record"].proposals] == ["rules"]
    assert asked["situation"].snapshot.now_s == 60.0


def test_the_format_gives_back_what_went_in_and_one_object_per_proposal():
    rollback, rules = Proposal("rules", "fcfs", verdict="ok"), Proposal("rules", "fcfs")
    decision = record(proposals=[rules, rollback], situation={"much": [1.5, 2.5]})
    values = {
        "record": decision, "rollback": rollback, "incumbent": Proposal("incumbent", "edf"),
        "chosen": rollback, "situation": situation(), "budget_s": None,
        "messages": [{"role": "user", "content": "which?"}],
    }  # fmt: skip
    form = DecisionFormat()
    again = form.loads_typed(form.dumps_typed({"id": "1", "channel_values": values}))
    read = again["channel_values"]
    assert read == values
    assert read["rollback"] is read["record"].proposals[1]
    assert read["chosen"] is read["rollback"]
    assert read["incumbent"] not in read["record"].proposals


def test_a_text_is_kept_for_one_object_only():
    form = DecisionFormat()
    for policy in ("edf", "fcfs", "edf", "slide", "sjf", "density", "fcfs"):
        seen = situation(policy)
        assert form.loads_typed(form.dumps_typed(seen)) == seen


def test_the_newest_decisions_are_kept(saver):
    controller = Controller(FakeEngine(), saver)
    for at_s in range(60, 660, 60):
        controller.decide(float(at_s))
    assert threads(saver) == [thread_of(1, at_s) for at_s in (480.0, 540.0, 600.0)]
    assert saver.newest_thread() == thread_of(1, 600.0)


def test_a_failing_disk_costs_checkpoints_and_not_control(saver, caplog):
    controller = Controller(FakeEngine(), saver)
    saver.conn.execute("DROP TABLE checkpoints")
    controller.decide(60.0)
    controller.decide(120.0)
    assert [made.at_s for made in controller.records] == [60.0, 120.0]
    assert saver.refused > 2
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "cannot be forked" in caplog.text


def test_without_a_file_to_write_there_are_no_checkpoints(tmp_path, caplog):
    assert open_checkpointer(None) is None
    assert open_checkpointer(tmp_path / "other.sqlite", kept=0) is None
    assert list(tmp_path.iterdir()) == []
    ledger = tmp_path / "l.sqlite"
    checkpoints_of(ledger).write_text("this is no database, but it is long enough to be read")
    assert open_checkpointer(ledger) is None
    assert f"{ledger}.checkpoints: no checkpoints are kept" in caplog.text


def test_a_decision_that_still_fits_is_finished_after_a_restart(saver):
    engine = FakeEngine(policy="edf")
    Controller(engine, saver).decide(60.0, dies_in="act")
    engine.now_s = 63.0
    restarted = Controller(engine, saver)
    outcome = recover(restarted.graph, saver, engine.snapshot(), max_age_s=10.0)
    assert (outcome.outcome, outcome.reason) == ("resumed", "before act")
    (made,) = restarted.records
    assert (made.at_s, made.epoch_before) == (60.0, 0)
    assert recover(restarted.graph, saver, engine.snapshot(), 10.0).outcome == "nothing"


@pytest.mark.parametrize(
    ("after", "now_s", "reason"),
    [
        ({}, 71.0, "11 s old, at most 10 s are allowed"),
        ({}, 5.0, "-55 s old"),
        ({"epoch": 4}, 61.0, "the engine went on from epoch 0 to 4"),
        ({"policy": "fcfs"}, 61.0, "the engine went on"),
    ],
)
def test_a_decision_that_no_longer_fits_is_dropped_and_not_applied(saver, after, now_s, reason):
    engine = FakeEngine(policy="edf")
    Controller(engine, saver).decide(60.0, dies_in="act")
    changed = dataclasses.replace(engine, now_s=now_s, **after)
    restarted = Controller(changed, saver)
    outcome = recover(restarted.graph, saver, changed.snapshot(), max_age_s=10.0)
    assert outcome.outcome == "dropped"
    assert reason in outcome.reason
    assert (restarted.records, changed.applied, threads(saver)) == ([], [], [])


def test_what_was_applied_before_the_end_is_not_applied_again(saver):
    engine = FakeEngine(policy="fcfs")
    first = Controller(engine, saver)
    first.parts.watch.look()
    serve(engine, 80, at_s=0.0)
    first.decide(60.0)
    assert [decision.policy for decision in engine.applied] == ["edf"]
    # The last step is gone, as if the controller had died before the record was written.
    saver.conn.execute(
        "DELETE FROM checkpoints WHERE checkpoint_id = (SELECT max(checkpoint_id) FROM checkpoints)"
    )
    restarted = Controller(engine, saver)
    outcome = recover(restarted.graph, saver, engine.snapshot(), max_age_s=10.0)
    assert (outcome.outcome, len(engine.applied)) == ("dropped", 1)


def test_a_tick_that_had_seen_nothing_yet_is_dropped(saver):
    engine = FakeEngine()
    Controller(engine, saver).decide(60.0, dies_in="observe")
    restarted = Controller(engine, saver)
    outcome = recover(restarted.graph, saver, engine.snapshot(), max_age_s=10.0)
    assert (outcome.outcome, outcome.reason) == ("dropped", "the engine had not been looked at yet")


def test_an_empty_file_has_nothing_to_recover(saver):
    controller = Controller(FakeEngine(), saver)
    assert recover(controller.graph, saver, FakeEngine().snapshot(), 10.0).outcome == "nothing"


def test_a_file_that_is_in_use_is_waited_for_a_moment_only(tmp_path):
    path = tmp_path / "busy.checkpoints"
    DecisionSaver(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    saver = DecisionSaver(path)
    controller = Controller(FakeEngine(), saver)
    saver.conn.execute("PRAGMA busy_timeout = 1")
    controller.decide(60.0)
    assert len(controller.records) == 1
    assert saver.refused > 0
    other.execute("ROLLBACK")
    other.close()
    saver.close()

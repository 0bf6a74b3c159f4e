"""Is a running engine put under an arm, held there, and given back?"""

import threading
from dataclasses import replace

import pytest

from evals.arms.steering import ArmError
from evals.live.arm import steered
from evals.live.own_server import own_server
from evals.live.server import Server, wait_until_at_rest
from evals.suite.arms import ControllerOptions, parse_arm
from hmas_agents.ledger.reader import LedgerReader
from serving.contracts import Ack, QueueState
from serving.contracts.rules import RULES
from serving.contracts.settings import EngineSettings
from serving.engines.protocol import EngineUnavailable
from serving.launch.launcher import ServerError
from tests.fakes import FakeEngine

OPTIONS = ControllerOptions()


def test_the_stock_arm_touches_nothing():
    engine = FakeEngine()
    with steered(parse_arm("vllm-fcfs"), engine, OPTIONS, {}):
        pass
    assert engine.applied == []


def test_a_fixed_arm_holds_its_policy_and_gives_it_back():
    engine = FakeEngine(epoch=4)
    with steered(parse_arm("fixed-edf"), engine, OPTIONS, {}):
        assert (engine.policy, engine.owner, engine.epoch) == ("edf", "fixed", 5)
    assert (engine.policy, engine.owner) == ("fcfs", "")


def test_a_fixed_arm_with_rules_switches_them_on():
    engine = FakeEngine()
    with steered(parse_arm("fixed-fcfs+balance"), engine, OPTIONS, {}):
        assert engine.limits.prefill_share == RULES["balance"]["prefill_share"]
        assert not engine.limits.follow_slack


def test_a_fixed_arm_with_parameters_decides_them():
    engine = FakeEngine()
    with steered(parse_arm("fixed-slide:kappa=5"), engine, OPTIONS, {}):
        assert [(d.policy, d.params) for d in engine.applied] == [("slide", {"kappa": 5.0})]


def test_a_fixed_arm_is_given_back_when_the_replay_fails():
    engine = FakeEngine()
    with pytest.raises(LookupError), steered(parse_arm("fixed-edf"), engine, OPTIONS, {}):
        raise LookupError
    assert engine.owner == ""


def test_an_arm_that_is_only_simulated_is_refused():
    engine = FakeEngine()
    with (
        pytest.raises(ArmError, match="rules-only: simulated only"),
        steered(parse_arm("rules-only"), engine, OPTIONS, {}),
    ):
        pass
    assert engine.applied == []


def test_an_engine_with_an_owner_is_refused():
    engine = FakeEngine(owner="hmas", lease_until_s=9.0)
    with (
        pytest.raises(ArmError, match="'hmas' owns the engine"),
        steered(parse_arm("vllm-fcfs"), engine, OPTIONS, {}),
    ):
        pass


def test_a_server_whose_default_is_not_fcfs_is_no_stock_arm():
    engine = FakeEngine(policy="slide")
    with (
        pytest.raises(ArmError, match="default policy is 'slide'"),
        steered(parse_arm("vllm-fcfs"), engine, OPTIONS, {}),
    ):
        pass


def test_a_refused_decision_is_an_error():
    class Refusing(FakeEngine):
        def apply(self, decision):
            return Ack(False, 0, "envelope")

    with (
        pytest.raises(ArmError, match="refused: envelope"),
        steered(parse_arm("fixed-edf"), Refusing(), OPTIONS, {}),
    ):
        pass


def test_an_engine_that_leaves_a_rule_out_is_an_error_and_given_back():
    class Forgetting(FakeEngine):
        def apply(self, decision):
            without = replace(decision.limits, prefill_share=0.0)
            return super().apply(replace(decision, limits=without))

    engine = Forgetting()
    with (
        pytest.raises(ArmError, match=r"other limits: prefill_share = 0\.35 became 0\.0"),
        steered(parse_arm("fixed-edf+balance"), engine, OPTIONS, {}),
    ):
        pass
    assert engine.owner == ""


def test_the_hmas_arm_acts_from_its_own_thread_and_gives_the_engine_back(tmp_path):
    acted = threading.Event()

    class Watched(FakeEngine):
        def apply(self, decision):
            ack = super().apply(decision)
            acted.set()
            return ack

    engine = Watched()
    options = replace(OPTIONS, ledger_path=tmp_path / "ledger.sqlite")
    off = {"twin.enabled": False}
    with steered(parse_arm("hmas"), engine, options, off, run_label="calm 1x hmas live"):
        assert acted.wait(60)
        assert engine.owner
    assert engine.owner == ""
    with LedgerReader(tmp_path / "ledger.sqlite") as reader:
        assert [run.label for run in reader.list_runs()] == ["calm 1x hmas live"]


def test_a_controller_that_crashes_is_reported():
    broken, failed = threading.Event(), threading.Event()

    class Breaking(FakeEngine):
        def journal(self, cursor, limit=5000):
            if broken.is_set():
                failed.set()
                raise ZeroDivisionError("broken on purpose")
            return super().journal(cursor, limit)

    arm = steered(parse_arm("hmas"), Breaking(), OPTIONS, {"twin.enabled": False})
    arm.__enter__()
    broken.set()
    assert failed.wait(60)
    with pytest.raises(ArmError, match="hmas: the controller stopped early: broken on purpose"):
        arm.__exit__(None, None, None)


def test_without_a_model_no_server_is_started_and_the_error_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("evals.live.own_server.embedded", lambda: tmp_path / "none")
    with (
        pytest.raises(ServerError, match="run `make model`"),
        own_server(EngineSettings(), tmp_path, port=9),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_engine_at_work_is_not_idle():
    engine = FakeEngine()
    server = Server("http://none", "m", engine)
    wait_until_at_rest(server)
    engine.queue = replace(QueueState(), waiting=3)
    with pytest.raises(ArmError, match="3 requests still in http://none"):
        wait_until_at_rest(server, wait_s=0.0)


def test_an_engine_that_is_too_busy_to_answer_is_asked_again(monkeypatch):
    engine = FakeEngine(down=True)
    server = Server("http://h", "tiny", engine)
    monkeypatch.setattr("time.sleep", lambda _: setattr(engine, "down", False))
    wait_until_at_rest(server)
    engine.down = True
    with pytest.raises(EngineUnavailable):
        wait_until_at_rest(server, wait_s=-1.0)

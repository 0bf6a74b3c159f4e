"""The one writer: whole desired state, epochs, lease, release."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import Ack, Decision, Limits
from serving.engines.protocol import EngineUnavailable
from tests.fakes import ENVELOPE, STOCK, FakeEngine
from tools import ControlSession


def make(engine: FakeEngine, dry_run: bool = False) -> ControlSession:
    return ControlSession(engine, "me", 10.0, dry_run)


def test_each_change_carries_all_earlier_ones():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide", params={"kappa": 5.0}, reason="a")
    session.change(token_budget=512, reason="b")
    last = engine.applied[-1]
    assert (last.policy, last.params) == ("slide", {"kappa": 5.0})
    assert last.limits == Limits(64, 512)
    assert last.epoch == 2


def test_a_new_policy_does_not_inherit_parameters():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide", params={"kappa": 5.0})
    session.change(policy="edf")
    assert engine.params == {}


@given(
    st.builds(
        Limits,
        max_active_requests=st.integers(-5, 10_000),
        token_budget=st.integers(-5, 100_000),
        long_prefill_threshold=st.integers(-5, 100_000),
        prefill_share=st.floats(-1, 2),
        follow_slack=st.booleans(),
    )
)
def test_limits_stay_inside_the_envelope_and_what_moved_is_said(asked):
    engine = FakeEngine()
    wishes = {name: getattr(asked, name) for name in Limits.__slots__}
    ack = make(engine).change(**wishes)
    assert 1 <= engine.limits.max_active_requests <= ENVELOPE.max_active_requests
    assert 1 <= engine.limits.token_budget <= ENVELOPE.token_budget
    assert 0 <= engine.limits.long_prefill_threshold <= ENVELOPE.max_model_len
    assert 0 <= engine.limits.prefill_share < 1
    moved = {n for n in Limits.__slots__ if getattr(engine.limits, n) != getattr(asked, n)}
    assert set(ack.clamped) == moved


def test_a_lost_lease_is_taken_back_with_everything():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide", token_budget=512)
    engine.now_s = 60.0
    assert engine.snapshot().policy == "fcfs"
    assert session.renew().accepted
    assert (engine.policy, engine.limits.token_budget, engine.owner) == ("slide", 512, "me")


def test_a_lease_that_someone_else_took_stays_theirs():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide")
    engine.owner, engine.lease_until_s = "other", 1000.0
    assert not session.renew().accepted
    assert engine.owner == "other"


def test_renewing_keeps_the_epoch():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide")
    engine.now_s = 9.0
    assert session.renew().epoch == 1
    assert engine.lease_until_s == 19.0


def test_nothing_is_applied_after_release():
    engine = FakeEngine()
    session = make(engine)
    session.change(policy="slide")
    assert session.release().accepted
    assert not session.change(policy="edf").accepted
    assert not session.renew().accepted
    assert (engine.policy, engine.limits, engine.owner) == ("fcfs", STOCK, "")


def test_a_first_decision_that_was_not_answered_is_released():
    """It may have taken effect: the lease is not left to run out."""

    class Slow(FakeEngine):
        def apply(self, decision: Decision) -> Ack:
            super().apply(decision)
            raise EngineUnavailable("timed out")

    engine = Slow()
    session = make(engine)
    with pytest.raises(EngineUnavailable):
        session.change(policy="slide")
    assert engine.owner == "me"
    assert session.release().accepted
    assert (engine.policy, engine.owner) == ("fcfs", "")


def test_concurrent_changes_are_all_kept_in_order():
    engine = FakeEngine()
    session = make(engine)
    wishes: list[dict[str, Any]] = [
        {"token_budget": 100}, {"prefill_share": 0.1}, {"max_active_requests": 9},
    ] * 20  # fmt: skip
    threads = [threading.Thread(target=session.change, kwargs=wish) for wish in wishes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [d.epoch for d in engine.applied] == list(range(1, 61))
    assert engine.limits == Limits(9, 100, prefill_share=0.1)

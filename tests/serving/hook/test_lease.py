"""One controller at a time, growing epochs, leases that end, limits inside the envelope?"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.contracts import PERSON, PINNED_S, Ack, Decision, Limits, TenantPart
from serving.hook.lease import Lease, clamp
from tests.serving.samples import ENVELOPE, STOCK, decision

DEFAULT = Decision("", 0, 0.0, "fcfs", {}, STOCK)


def lease() -> Lease:
    return Lease(DEFAULT, ENVELOPE)


def test_an_accepted_decision_is_in_force_until_its_lease_ends():
    held = lease()
    assert held.accept(decision(1, "edf", ttl_s=10.0), now_s=100.0).accepted
    assert (held.owner, held.epoch, held.decision.policy) == ("me", 1, "edf")
    assert held.decision.params == {"kappa": 0.0}, "complete"
    assert held.left_s(104.0) == 6.0
    assert not held.expire(109.9)
    assert held.expire(110.0)
    assert held.decision == DEFAULT
    assert (held.owner, held.left_s(110.0)) == ("", 0.0)
    assert held.epoch == 2, "outcomes served by the default carry another epoch"
    assert not held.expire(111.0), "it comes back once"


def test_renewing_extends_from_now_and_releasing_ends_at_once():
    held = lease()
    held.accept(decision(1, ttl_s=10.0), 0.0)
    assert held.renew("me", 10.0, 8.0).accepted
    assert not held.expire(17.9)
    assert held.release("me", 17.9).accepted
    assert (held.decision, held.epoch) == (DEFAULT, 2)
    assert held.release("me", 18.0).accepted, "nothing to give back is no fault"
    assert not held.renew("me", 10.0, 18.0).accepted


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (decision(5, controller_id=""), "controller_id is empty"),
        (decision(5, controller_id="you"), "controller 'me' owns this engine for another 8.0 s"),
        (decision(4), "epoch 4 is not above the present 4"),
        (decision(2**53 + 1), f"epoch {2**53 + 1} is not above the present 4 (up to {2**53})"),
        (decision(5, ttl_s=0.0), "ttl_s = 0.0"),
        (decision(5, ttl_s=-1.0), "ttl_s = -1.0"),
        (decision(5, ttl_s=math.nan), "ttl_s = nan"),
        (decision(5, ttl_s=math.inf), "ttl_s = inf"),
        (decision(5, "nope"), "policy 'nope' does not exist; there are fcfs"),
        (decision(5, params={"kappa": 9999.0}), "edf.kappa = 9999.0 is outside"),
        (decision(5, params={"beta": 1.0}), "no parameter 'beta'; it has kappa"),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(refused, reason):
    held = lease()
    held.accept(decision(4, "sjf"), 0.0)
    before = (held.decision, held.epoch, held.left_s(2.0))
    ack = held.accept(refused, 2.0)
    assert not ack.accepted
    assert ack.epoch == 4
    assert reason in ack.reason
    assert (held.decision, held.epoch, held.left_s(2.0)) == before


def test_only_the_owner_renews_and_releases():
    held = lease()
    held.accept(decision(1), 0.0)
    for ack in (held.renew("you", 10.0, 1.0), held.release("you", 1.0)):
        assert not ack.accepted
        assert "'me' owns" in ack.reason
    for ttl_s in (0.0, -1.0, math.nan, math.inf):
        assert "ttl_s" in held.renew("me", ttl_s, 1.0).reason
    assert held.left_s(1.0) == 9.0


def test_another_controller_may_follow_when_the_lease_has_ended():
    held = lease()
    held.accept(decision(1, ttl_s=10.0), 0.0)
    held.expire(10.0)
    assert held.accept(decision(3, controller_id="you"), 10.0).accepted
    assert held.owner == "you"


ALICE = f"{PERSON}alice@desk"


def test_a_person_outranks_a_controller_and_holds_until_released():
    held = lease()
    held.accept(decision(1), 0.0)
    pinned = decision(2, "sjf", controller_id=ALICE, ttl_s=PINNED_S)
    assert held.accept(pinned, 1.0).accepted
    assert (held.owner, held.decision.policy) == (ALICE, "sjf")
    for now_s in (2.0, 100 * 86_400.0):
        assert not held.expire(now_s)
        for ack in (held.renew("me", 10.0, now_s), held.accept(decision(3), now_s)):
            assert ack.reason == (
                "alice@desk holds this engine until it is released (`hmas release` ends that)"
            )
            assert not ack.accepted
    assert held.release(ALICE, 4.0).accepted
    assert held.accept(decision(4), 4.0).accepted


def test_a_controller_cannot_pin():
    assert "ttl_s" in lease().accept(decision(1, ttl_s=PINNED_S), 0.0).reason


def test_the_kill_switch_puts_the_default_in_force_and_lets_no_decision_in():
    held = lease()
    held.accept(decision(1), 0.0)
    assert held.stop("alice@desk", "odd latencies", 5.0).accepted
    assert (held.decision, held.owner, held.epoch) == (DEFAULT, "", 2)
    told = "stopped by alice@desk 3 s ago (odd latencies); `hmas start` ends that"
    for ack in (
        held.accept(decision(3), 8.0),
        held.accept(decision(3, controller_id=ALICE), 8.0),
        held.renew("me", 10.0, 8.0),
    ):
        assert (ack.accepted, ack.reason) == (False, told)
    assert held.release("me", 8.0).accepted, "a controller may still go"
    assert held.stop("bob@desk", "", 8.0).reason == told, "the first one stands"
    assert not held.expire(1e9), "it ends by no clock"
    assert held.start().reason == "it was stopped by alice@desk"
    assert held.decision == DEFAULT, "what was in force does not come back by itself"
    assert held.accept(decision(3), 9.0).accepted
    assert held.start().accepted


def test_who_stops_an_engine_says_who_it_is():
    held = lease()
    assert not held.stop("", "", 0.0).accepted
    assert held.stopped is None


whole = st.integers(-(10**30), 10**30)
limits = st.builds(
    Limits, whole, whole, whole, st.booleans(),
    prefill_share=st.floats(allow_nan=True, allow_infinity=True),
)


@settings(deadline=None)
@given(wanted=limits)
def test_limits_end_up_inside_the_envelope_and_changes_are_reported(wanted):
    inside, clamped = clamp(wanted, ENVELOPE)
    assert 1 <= inside.max_active_requests <= ENVELOPE.max_active_requests
    assert 1 <= inside.token_budget <= ENVELOPE.token_budget
    assert 0 <= inside.long_prefill_threshold <= ENVELOPE.max_model_len
    assert 0.0 <= inside.prefill_share <= 0.9
    assert inside.follow_slack is wanted.follow_slack
    for name in ("max_active_requests", "token_budget", "long_prefill_threshold", "prefill_share"):
        assert (name in clamped) == (getattr(inside, name) != getattr(wanted, name))
    assert all(getattr(inside, name) == value for name, value in clamped.items())
    assert clamp(inside, ENVELOPE) == (inside, {})


class LeaseMachine(RuleBasedStateMachine):
    """Several controllers that decide, renew, release and fall silent at any time."""

    controllers = st.sampled_from(["me", "you", "them", ALICE])

    def __init__(self) -> None:
        super().__init__()
        self.lease, self.now_s, self.epoch = lease(), 0.0, 0

    def owner(self) -> str:
        """Who owns the engine now; the hook ends overdue leases before every call."""
        self.lease.expire(self.now_s)
        return self.lease.owner

    def check(self, ack: Ack, owner_before: str, controller_id: str) -> None:
        assert ack.epoch == self.lease.epoch
        assert ack.reason
        if owner_before and owner_before != controller_id and controller_id != ALICE:
            assert not ack.accepted

    @rule(by_s=st.floats(0, 15))
    def advance(self, by_s):
        self.now_s += by_s
        had_run_out = bool(self.lease.owner) and self.lease.left_s(self.now_s) == 0.0
        assert self.lease.expire(self.now_s) == had_run_out

    @rule(
        controller_id=controllers, step=st.integers(-2, 3), ttl_s=st.floats(-1, 20),
        policy=st.sampled_from(["fcfs", "edf", "nope"]), wanted=limits,
    )  # fmt: skip
    def accept(self, controller_id, step, ttl_s, policy, wanted):
        owner, before = self.owner(), self.lease.epoch
        new = decision(
            before + step, policy, controller_id=controller_id, ttl_s=ttl_s, limits=wanted
        )
        ack = self.lease.accept(new, self.now_s)
        self.check(ack, owner, controller_id)
        mine = controller_id == ALICE or owner in ("", controller_id)
        good = policy != "nope" and step > 0 and ttl_s > 0 and mine and not self.lease.stopped
        assert ack.accepted == good
        assert self.lease.epoch == (before + step if good else before)

    @rule(controller_id=controllers, ttl_s=st.floats(-1, 20))
    def renew(self, controller_id, ttl_s):
        owner, epoch = self.owner(), self.lease.epoch
        ack = self.lease.renew(controller_id, ttl_s, self.now_s)
        self.check(ack, owner, controller_id)
        assert ack.accepted == (ttl_s > 0 and owner == controller_id)
        assert self.lease.epoch == epoch, "the same decision stays in force"

    @rule(controller_id=controllers)
    def release(self, controller_id):
        owner = self.owner()
        self.check(self.lease.release(controller_id, self.now_s), owner, controller_id)
        may = controller_id in (owner, ALICE)
        assert self.lease.owner == ("" if may else owner)

    @rule()
    def stop(self):
        assert self.lease.stop("alice@desk", "", self.now_s).accepted

    @rule()
    def start(self):
        assert self.lease.start().accepted

    @invariant()
    def epochs_only_grow(self):
        assert self.lease.epoch >= self.epoch
        self.epoch = self.lease.epoch

    @invariant()
    def a_stopped_engine_is_on_its_default(self):
        if self.lease.stopped is not None:
            assert (self.lease.owner, self.lease.decision) == ("", DEFAULT)

    @invariant()
    def without_an_owner_the_default_is_in_force(self):
        if not self.lease.owner:
            assert self.lease.decision == DEFAULT
        assert clamp(self.lease.decision.limits, ENVELOPE)[1] == {}


LeaseMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLeaseMachine = LeaseMachine.TestCase


PARTS = {"acme": TenantPart(share=0.5, limits=0.25)}


def test_parts_come_with_a_renewal_and_end_with_the_lease():
    held = lease()
    held.accept(decision(1, ttl_s=10.0), 0.0)
    assert held.renew("me", 10.0, 1.0, PARTS).accepted
    assert held.renew("me", 10.0, 2.0).accepted
    assert held.accept(decision(2, ttl_s=10.0), 3.0).accepted
    assert held.parts == PARTS, "neither a renewal without parts nor a decision takes them"
    assert held.renew("me", 10.0, 4.0, {}).accepted
    assert held.parts == {}
    held.renew("me", 10.0, 5.0, PARTS)
    assert held.expire(15.0)
    assert held.parts == {}


def test_parts_do_not_pass_to_another_controller():
    held = lease()
    held.accept(decision(1, ttl_s=10.0), 0.0)
    held.renew("me", 10.0, 1.0, PARTS)
    assert not held.renew("you", 10.0, 2.0, {}).accepted
    assert held.parts == PARTS
    assert held.accept(decision(2, controller_id=ALICE, ttl_s=10.0), 3.0).accepted
    assert held.parts == {}


@pytest.mark.parametrize("factor", [-0.1, math.nan, math.inf, 2e6])
@pytest.mark.parametrize("key", ["share", "limits"])
def test_a_part_that_is_none_is_refused_by_name_and_renews_nothing(key, factor):
    held = lease()
    held.accept(decision(1, ttl_s=10.0), 0.0)
    ack = held.renew("me", 10.0, 5.0, {"acme": TenantPart(**{key: factor})})
    assert not ack.accepted
    assert ack.reason == f"parts.acme.{key} = {factor} is outside 0..1e+06"
    assert held.left_s(5.0) == 5.0

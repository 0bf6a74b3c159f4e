"""What may happen to an engine, in any order?

A hypothesis state machine on the hooked scheduler in virtual time; `test_guarantees.py`
runs it, and runs it with planted bugs. What must hold all the while: `guarantee_checks.py`.
"""

import sys

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from vllm.v1.core.sched.interface import PauseState

from serving.contracts import ContractChange, Decision
from serving.core.state import PARAMETERS
from serving.engines.offered import as_the_trace_says
from serving.policies import POLICIES
from tests.serving.guarantee_checks import Guarantees
from tests.serving.guarantee_inputs import (
    ALL_RULES,
    FLOOR,
    INF,
    MAX_WAIT_S,
    NAN,
    SETTINGS,
    STOCK,
    TENANTS,
    garbage,
    wild_limits,
    wild_params,
)
from tests.serving.samples import shares

WITH_KAPPA = [name for name, policy in POLICIES.items() if "kappa" in policy.param_bounds]


class GuaranteeMachine(Guarantees):
    """Arrivals, aborts, steps, decisions and faults in any order."""

    def teardown(self) -> None:
        """Whatever is in force at the end: everybody is served."""
        try:
            if sys.exc_info()[0] is not None:  # a rule has failed already: that one counts
                return
            self.scheduler.set_pause_state(PauseState.UNPAUSED)
            self.driven.drain()
            self.no_request_is_lost()
            self.nothing_is_left_behind()
        finally:
            self.total["steps"] += self.driven.steps
            self.total["requests"] += len(self.driven.guests)
            self.total["preemptions"] += self.driven.preemptions
            self.total["faults"] += self.scheduler.faults

    # -- what may happen --------------------------------------------------------------

    @initialize(count=st.integers(0, 12))
    def a_queue_is_there(self, count):
        for i in range(count):
            self.driven.arrive(TENANTS[i % 4], 4 + 5 * i % 24, 1 + i % 9)

    @rule(
        tenant=st.sampled_from(TENANTS), prompt=st.integers(1, 44), answer=st.integers(1, 30),
        priority=st.sampled_from([0, 1, -5, 2**63 - 1, -(2**63)]), extra=garbage,
    )  # fmt: skip
    def arrive(self, tenant, prompt, answer, priority, extra):
        self.driven.arrive(tenant, prompt, answer, priority, extra)

    @rule(tenant=st.sampled_from(TENANTS[:5]), count=st.integers(2, 15), prompt=st.integers(1, 40))
    def flood(self, tenant, count, prompt):
        for i in range(count):
            self.driven.arrive(tenant, prompt, 1 + (prompt + i) % 12, extra={"slo_ttft_ms": 300})

    @rule(which=st.lists(st.integers(0, 400), max_size=4), everybody=st.integers(0, 40))
    def abort(self, which, everybody):
        """Waiting, running, unknown ones and those that have left; seldom all."""
        self.driven.abort(None if everybody == 40 else [f"r{i}" for i in which])

    @precondition(lambda self: self.driven.inside)
    @rule(which=st.integers(0))
    def abort_one_inside(self, which):
        names = list(self.driven.inside)
        self.driven.abort([names[which % len(names)]])

    @precondition(lambda self: self.scheduler.has_requests() or self.driven.in_flight)
    @rule(count=st.sampled_from([1, 1, 3, 10, 30]), ahead=st.integers(0, 1))
    def steps(self, count, ahead):
        for _ in range(count):
            if self.scheduler.has_requests():
                self.check_step(self.driven.step(ahead))
        while self.driven.in_flight > ahead:
            self.driven.update()

    @rule(seconds=st.sampled_from([0.001, 0.3, 2.0, MAX_WAIT_S + 0.1, 60.0]))
    def time_passes(self, seconds):
        self.driven.now_s += seconds

    @rule(
        who=st.sampled_from(["me", "you", ""]), newer=st.sampled_from([-1, 0, 1, 1, 1, 3, 2**60]),
        ttl_s=st.sampled_from([0.5, 5.0, 5.0, 1e4, 0.0, -1.0, 1e9, NAN, INF]),
        policy=st.sampled_from([*POLICIES, *POLICIES, "nope", ""]),
        params=st.just({}) | wild_params, limits=wild_limits,
    )  # fmt: skip
    def hostile_decision(self, who, newer, ttl_s, policy, params, limits):
        self.decide(Decision(who, self.epoch + newer, ttl_s, policy, params, limits))

    @rule(policy=st.sampled_from([*POLICIES]), limits=st.just(ALL_RULES) | wild_limits)
    def sound_decision(self, policy, limits=STOCK):
        """Sound but for its limits, which are clamped."""
        self.let_the_lease_end()
        accepted = self.decide(Decision("me", self.epoch + 1, 30.0, policy, {}, limits))
        assert accepted, "a sound decision is put in force"

    @rule(
        policy=st.sampled_from([name for name in POLICIES if name != "fcfs"]),
        old=st.integers(7, 15), new=st.integers(1, 9), prompt=st.integers(20, 44),
    )  # fmt: skip
    def some_have_waited_too_long(self, policy, old, new, prompt):
        """The situation that the ceiling is for."""
        self.sound_decision(policy)
        self.flood("heavy", old, prompt)
        self.time_passes(MAX_WAIT_S + 0.1)
        self.flood("light" if prompt % 2 else "heavy", new, 4)

    @rule(policy=st.sampled_from([None, *WITH_KAPPA]), limits=st.just(STOCK) | wild_limits)
    def faulty_policy(self, policy, limits):
        """A parameter is no number any more, and so are keys that are computed from now on."""
        if policy is not None:
            self.sound_decision(policy, limits)
        for parameter in PARAMETERS:
            self.scheduler.queue.core.engine[parameter] = NAN

    @rule(who=st.sampled_from(["me", "you", ""]), ttl_s=st.sampled_from([2.0, 30.0, 0.0, NAN]))
    def renew(self, who, ttl_s):
        held = self.holds_lease()
        ack = self.scheduler.hmas_renew(who, ttl_s)
        assert ack.accepted == (held and who == self.owner and ttl_s in (2.0, 30.0))
        if ack.accepted:
            self.ends_s = self.driven.now_s + ttl_s

    @rule(who=st.sampled_from(["me", "you", ""]))
    def release(self, who):
        held = self.holds_lease()
        ack = self.scheduler.hmas_release(who)
        assert ack.accepted == (not held or who == self.owner)
        if ack.accepted:
            self.owner = ""

    @precondition(lambda self: self.settings is SETTINGS)
    @rule(heavy=st.sampled_from([0.2, 1.0, 9.0]), listed=st.sampled_from(["light", "n0", "n5"]))
    def another_contract(self, heavy, listed):
        """Other weights, and another tenant with a lane of its own; the floor stays promised."""
        contract = shares({"heavy": heavy, listed: 2.0}, {"floored": FLOOR})
        self.contracts += 1
        ack = self.scheduler.hmas_apply_contract(
            ContractChange(as_the_trace_says(contract), self.contracts)
        )
        assert ack.accepted

    contracts = 0

    @rule(state=st.sampled_from([*PauseState, PauseState.UNPAUSED]))
    def pause_or_resume(self, state):
        self.scheduler.set_pause_state(state)

    @rule(running_too=st.booleans())
    def reset_prefix_cache(self, running_too):
        self.scheduler.reset_prefix_cache(reset_running_requests=running_too)

"""Do the guarantees below every agent hold, whatever happens in whatever order?

`pytest tests/serving/test_guarantees.py -s` prints how much was tried; HMAS_EXAMPLES sets
the number of examples. The planted bugs show that the machine would notice.
"""

import itertools
import logging
import os
import random
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import serving.hook.queue
from serving.contracts import Contract, Decision, Limits
from serving.contracts.settings import EngineSettings
from serving.core import calls
from serving.policies import POLICIES
from tests.serving.driven_scheduler import Driven
from tests.serving.guarantee_checks import floor_bound
from tests.serving.guarantee_inputs import ALL_RULES, FLOOR, SETTINGS, STOCK
from tests.serving.guarantee_machine import GuaranteeMachine
from tests.serving.samples import shares

EXAMPLES = int(os.environ.get("HMAS_EXAMPLES", "60"))
ANY_ORDER = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
# Stops at the first failure, the same one each time.
PLANTED = settings(
    max_examples=150, stateful_step_count=50, deadline=None, derandomize=True, database=None,
    phases=[Phase.generate], report_multiple_bugs=False, print_blob=False,
)  # fmt: skip
FEW = settings(max_examples=max(4, EXAMPLES // 6), deadline=None)
HOSTILE = [
    STOCK,
    replace(STOCK, token_budget=2),
    replace(STOCK, max_active_requests=1),
    replace(STOCK, long_prefill_threshold=1),
    replace(STOCK, prefill_share=0.9),
    ALL_RULES,
]
WEIGHTS = {"two": 2.0, "one": 1.0, "late": 1.0}


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="vllm")


def test_every_guarantee_holds_in_any_order_of_events():
    GuaranteeMachine.total.clear()
    run_state_machine_as_test(GuaranteeMachine, settings=ANY_ORDER)
    total = GuaranteeMachine.total
    print("\nguarantees: " + ", ".join(f"{total[name]:,} {name}" for name in total))
    assert total["examples"] >= EXAMPLES
    assert min(total["steps"], total["preemptions"], total["faults"]) > 0, "it was no mere idling"


# -- shares, where much work is needed to see them ------------------------------------


def backlogged(driven: Driven, rng: random.Random, tenants: dict[str, int], work: int):
    """Steps in which each tenant always has as many requests waiting as `tenants` says."""
    goal = driven.work.total() + work
    for _ in range(20 * work):
        if driven.work.total() >= goal:
            return
        waiting = Counter(
            g.tenant for g in driven.inside.values() if not g.request.num_computed_tokens
        )
        for tenant, least in tenants.items():
            for _ in range(least - waiting[tenant]):
                driven.arrive(tenant, rng.randint(1, 30), rng.randint(1, 14))
        driven.step(ahead=rng.randrange(2))
        yield
    pytest.fail(f"{driven.work} is all that was done in {driven.steps} steps")


def keeps_shares(policy: str, seed: int, limits: Limits = STOCK) -> None:
    """Two flood, one comes late: shares by weight, from the moment that one has a backlog."""
    rng, driven = random.Random(seed), Driven(EngineSettings(contract=shares(WEIGHTS)))
    ack = driven.scheduler.hmas_apply(Decision("me", 1, 1e4, policy, {}, limits))
    assert ack.accepted
    tight = driven.profile
    bound = 2 * max(tight.max_model_len, 2 * tight.kv_blocks * tight.block_size)
    for tenants in ({"two": 12, "one": 3}, {"two": 12, "one": 3, "late": 3}):
        start, lead = driven.work.copy(), {pair: [0.0, 0.0] for pair in
                                                itertools.combinations(tenants, 2)}  # fmt: skip
        for _ in backlogged(driven, rng, tenants, 8 * bound):
            for (a, b), extremes in lead.items():
                now = [(driven.work[t] - start[t]) / WEIGHTS[t] for t in (a, b)]
                extremes[:] = min(extremes[0], now[0] - now[1]), max(extremes[1], now[0] - now[1])
                most = bound / min(WEIGHTS[a], WEIGHTS[b])
                assert extremes[1] - extremes[0] <= most, f"{a} and {b} are {extremes} apart"
    driven.drain()


def keeps_the_floor(
    policy: str, seed: int, limits: Limits = STOCK, engine: EngineSettings = SETTINGS
) -> None:
    """One floods with priority and tight deadlines; the tenant with a floor has none of them."""
    rng, driven = random.Random(seed), Driven(engine)
    ack = driven.scheduler.hmas_apply(Decision("me", 1, 1e4, policy, {}, limits))
    assert ack.accepted
    behind, seen = 0.0, Counter[str]()
    for _ in backlogged(driven, rng, {"heavy": 15, "floored": 2}, 9 * floor_bound()):
        work, seen = driven.work - seen, driven.work.copy()
        behind = max(0.0, behind + FLOOR * work.total() - work["floored"])
        assert behind <= floor_bound(), "the tenant's floor was not kept"
    driven.drain()


@FEW
@given(seed=st.integers(0, 10**6), limits=st.sampled_from(HOSTILE))
def test_fair_gives_each_backlogged_tenant_its_share_and_banks_nothing(seed, limits):
    keeps_shares("fair", seed, limits)


@FEW
@given(
    policy=st.sampled_from(sorted(POLICIES)), seed=st.integers(0, 10**6),
    limits=st.sampled_from(HOSTILE),
)  # fmt: skip
def test_a_tenant_with_a_floor_gets_it_whatever_is_decided(policy, seed, limits):
    keeps_the_floor(policy, seed, limits)


# -- planted bugs: would all this notice? ---------------------------------------------


class LosesRequests(GuaranteeMachine):
    """Every tenth look at the queue drops its head."""

    def sabotage(self):
        waiting, real = self.scheduler.queue, self.scheduler.queue.peek_request
        looks = itertools.count(1)

        def peek():
            if next(looks) % 10 == 0 and len(waiting) > 1:
                waiting.pop_request()
            return real()

        waiting.peek_request = peek


class HasNoCeiling(GuaranteeMachine):
    settings = SETTINGS.model_copy(update={"max_wait_s": 1e9})


class LeavesTheEnvelope(GuaranteeMachine):
    def sabotage(self):
        lease = self.scheduler.lease
        lease.envelope = replace(lease.envelope, token_budget=10**9, max_active_requests=10**9)


class KeepsADeadControllersRules(GuaranteeMachine):
    def sabotage(self):
        self.scheduler.lease.expire = lambda now_s: False


def raising(function):
    """A function of the core that does not tell a fault of the policy but raises."""

    def call(at, row):
        if function(at, row):
            raise ValueError("planted")

    return call


class LetsFaultsOut(GuaranteeMachine):
    """A key that is no number is an exception, which goes on to vLLM."""

    instead = {name: raising(getattr(calls, name)) for name in ("enter", "enter_first", "put_back")}


@pytest.mark.parametrize(
    ("planted", "sign"),
    [
        (LosesRequests, "lost|no progress|not served|went before"),
        (HasNoCeiling, "waited beyond the ceiling"),
        (LeavesTheEnvelope, "outside the envelope"),
        (KeepsADeadControllersRules, "the lease has ended"),
        (LetsFaultsOut, "planted"),
    ],
)
def test_a_planted_bug_is_found(planted, sign, monkeypatch):
    instead = getattr(planted, "instead", {})
    monkeypatch.setattr(serving.hook.queue, "calls", SimpleNamespace(**{**vars(calls), **instead}))
    with pytest.raises(Exception, match=sign):
        run_state_machine_as_test(planted, settings=PLANTED)


def test_shares_that_are_not_kept_are_noticed():
    with pytest.raises(AssertionError, match="apart"):
        keeps_shares("fcfs", seed=1)


def test_a_floor_that_is_ignored_is_noticed():
    no_floors = SETTINGS.under(Contract())
    with pytest.raises(AssertionError, match="floor was not kept"):
        keeps_the_floor("fcfs", seed=1, engine=no_floors)

"""Does `fair` give each backlogged tenant its weighted share of tokens, whoever floods?"""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.core.tenants import DECODE_WORK
from serving.hook.queue import PolicyQueue
from serving.perception.lanes import Lanes
from tests.serving.samples import LightRequest, view

PREFILL_S_PER_TOKEN = 0.01
MAX_WAIT_S = 900.0


class Shares:
    """A queue under `fair`; requests are (tenant, prompt tokens), all without a deadline."""

    def __init__(self, **weights: float) -> None:
        self.queue = PolicyQueue(
            lambda request: request.view, MAX_WAIT_S, self._never, Lanes(weights, {}, 64)
        )
        self.queue.set_policy("fair", {}, PREFILL_S_PER_TOKEN)
        self._count = itertools.count()

    @staticmethod
    def _never(policy: str, error: Exception) -> None:
        raise AssertionError(f"{policy} raised {error!r}")

    def add(
        self, tenant: str, prompt_tokens: int = 100, count: int = 1, *,
        arrival_s: float = 0.0, deadline_s: float = math.inf,
    ) -> None:  # fmt: skip
        for _ in range(count):
            name = f"r{next(self._count)}"
            one = view(name, arrival_s, deadline_s, prompt_tokens, tenant=tenant)
            self.queue.add_request(LightRequest(one))

    def pop(self, count: int = 1) -> str:
        """The tenants of the next `count` requests, one letter each."""
        return "".join(self.queue.pop_request().view.tenant[0] for _ in range(count))


def test_a_flood_delays_only_itself():
    shares = Shares()
    shares.add("flood", count=1000)
    shares.add("quiet", count=3)
    assert sorted(shares.pop(6)) == list("fffqqq")


def test_tokens_are_shared_not_requests():
    shares = Shares()
    shares.add("long", 300, count=10)
    shares.add("short", 100, count=30)
    assert Counter(shares.pop(20)) == {"s": 15, "l": 5}


def test_shares_follow_weights():
    shares = Shares(gold=3.0)
    shares.add("gold", count=30)
    shares.add("plain", count=30)
    assert Counter(shares.pop(20)) == {"g": 15, "p": 5}


def test_an_idle_tenant_banks_nothing():
    shares = Shares()
    shares.add("busy", count=50)
    assert shares.pop(30) == "b" * 30
    shares.add("idle", count=20)
    assert Counter(shares.pop(10)) == {"b": 5, "i": 5}


def test_a_tenant_that_comes_back_is_not_forgiven_what_it_was_ahead():
    shares = Shares()
    shares.add("ahead", 1000)
    shares.add("other", 100, count=30)
    while shares.queue.lanes.of("ahead").waiting:
        shares.pop()
    shares.add("ahead", 1000)
    assert "a" not in shares.pop(8)


def test_decoding_is_work_too():
    shares = Shares()
    shares.add("writes", count=10)
    shares.add("reads", count=10)
    shares.queue.lanes.of("writes").decoding = 1
    for _ in range(round(500 / DECODE_WORK)):  # 500 tokens' worth of answers
        shares.queue.lanes.count_decodes()
    assert shares.pop(5) == "rrrrr"


def test_inside_a_tenant_deadlines_decide_and_the_hopeless_come_last():
    shares = Shares()
    shares.add("a", 500, deadline_s=10.0)  # prefill takes 5 s
    shares.add("a", 100, deadline_s=40.0)
    shares.add("a", 100, deadline_s=20.0)
    shares.queue.advance(5.0)
    served = [shares.queue.pop_request().view.deadline_s for _ in range(3)]
    assert served == [20.0, 40.0, 10.0]


def test_among_equals_the_earlier_deadline_goes_first():
    shares = Shares()
    shares.add("late", deadline_s=30.0)
    shares.add("soon", deadline_s=20.0)
    assert shares.pop(2) == "sl"


@pytest.mark.parametrize("starved", ["poor", "rich"])
def test_the_ceiling_outranks_the_shares(starved):
    shares = Shares()
    shares.add(starved, arrival_s=0.0)
    shares.queue.lanes.of("rich").work = 1e6
    shares.add("poor", arrival_s=500.0)
    shares.add("rich", arrival_s=500.0)
    shares.queue.advance(MAX_WAIT_S)
    assert shares.queue.pop_request().view.arrival_s == 0.0


REQUESTS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(1, 5000)), min_size=2, max_size=60
)


@settings(deadline=None, max_examples=100)
@given(requests=REQUESTS, weights=st.tuples(*[st.floats(0.1, 10.0)] * 3))
def test_weighted_work_of_backlogged_tenants_differs_by_one_request_at_most(requests, weights):
    """VTC's invariant (arXiv 2401.00588): the counters differ by one charge at most."""
    weight_of = dict(zip("abc", weights, strict=True))
    shares = Shares(**weight_of)
    waiting: Counter[str] = Counter()
    for tenant, tokens in requests:
        shares.add(tenant, tokens)
        waiting[tenant] += 1
    work = dict.fromkeys(waiting, 0.0)
    bound = max(tokens / weight_of[tenant] for tenant, tokens in requests)
    while shares.queue:
        one = shares.queue.pop_request().view
        work[one.tenant] += one.prompt_tokens / weight_of[one.tenant]
        waiting[one.tenant] -= 1
        backlogged = [work[tenant] for tenant in work if waiting[tenant]]
        if backlogged:
            assert max(backlogged) - min(backlogged) <= bound * (1 + 1e-9)

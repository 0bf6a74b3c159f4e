"""Do the core's arrays say of the running batch what a plain loop over its requests says?"""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.contracts import CostCoefficients
from serving.core.calls import busy_until_s
from serving.core.decoding import decodes
from serving.perception.cost_model import StepShape
from serving.scheduler import HMASScheduler, HMASSyncScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.shaped_scheduler import Shaped

TIGHT = machine(kv_blocks=30, max_active=8, token_budget=24)
# So unlike each other that a step's predicted time tells its whole shape.
COST = CostCoefficients(1e-3, 1.37e-4, 3.71e-3, 7.13e-6, 2.9e-7)


class Watched(Shaped):
    """Checks the arrays after each step and each result, by a plain loop."""

    def check(self) -> None:
        """Arrays, decodes per lane and the coming step's decode part."""
        super().check()
        self.look()
        scheduler, core = self.scheduler, self.scheduler.queue.core
        decoding: dict[str, int] = {}
        running: dict[str, int] = {}
        count = context = 0
        for request in scheduler.running:
            name, computed = request.request_id, request.num_computed_tokens
            view = scheduler.observer.view_of(request)
            start = request.num_prompt_tokens + self.seen[name]
            produced = max(0, computed - request.num_prompt_tokens + 1)
            assert self.fact(name, "decoding") == (computed >= start)
            assert self.fact(name, "held_tokens") == max(computed, start)
            expected = self.fact(name, "expected_tokens")
            assert 0 < expected <= request.max_tokens
            assert self.fact(name, "remaining") == max(16.0, expected - produced)
            slack_s, tpot_ms = math.inf, view.slo.tpot_ms
            if computed >= start and tpot_ms and name in self.first_s:
                slack_s = self.first_s[name] + tpot_ms / 1000 * produced - self.now_s
            assert self.fact(name, "slack_s") == pytest.approx(slack_s)
            running[view.tenant] = running.get(view.tenant, 0) + 1
            if request.num_output_tokens > self.seen[name]:
                decoding[view.tenant] = decoding.get(view.tenant, 0) + 1
            if computed >= start and not self.fact(name, "hidden"):
                count, context = count + 1, context + max(computed, start)
        lanes = scheduler.queue.lanes
        assert {x.tenant: x.decoding for x in lanes if x.decoding} == decoding
        assert {x.tenant: x.running for x in lanes if x.running} == running
        assert decodes(core) == (count, context)

    def schedule(self):
        """A step, and its shape as a loop over its requests has it."""
        output = super().schedule()
        if self.ahead or not output.num_scheduled_tokens:
            return output
        prefill = square = decoded = context = 0
        for name, count in output.num_scheduled_tokens.items():
            request = self.requests[name]
            before = request.num_computed_tokens - count
            if before < request.num_prompt_tokens + self.seen[name]:
                prefill, square = prefill + count, square + count * before
            else:
                decoded += 1
            if request.num_output_tokens > self.seen[name]:
                context += request.num_computed_tokens
        began_s, shape = self.scheduler.observer.step_in_flight
        assert shape == (prefill, decoded, context, square)
        step_s = StepShape(*shape).seconds(COST)
        until_s = busy_until_s(self.scheduler.queue.rows.at, self.now_s, began_s, shape)
        assert until_s - self.now_s == pytest.approx(step_s, abs=1e-9)
        return output


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), ahead=st.integers(0, 1), sync=st.booleans(),
    caching=st.booleans(), policy=st.sampled_from(["fcfs", "edf", "fair", "mlfq"]),
)  # fmt: skip
def test_after_any_events_the_arrays_are_what_runs(seed, ahead, sync, caching, policy):
    rng = random.Random(seed)
    scheduler_cls = HMASSyncScheduler if sync else HMASScheduler
    engine = Watched(
        scheduler_cls, profile=TIGHT, ahead=0 if sync else ahead, prefix_caching=caching, cost=COST
    )
    engine.decide(
        policy, prefill_by_key=rng.random() < 0.5,
        follow_slack=rng.random() < 0.3, pace_decodes=rng.random() < 0.5,
    )  # fmt: skip
    for i in range(30):
        extra: dict[str, Any] = {"slo_tpot_ms": rng.choice([20, 60])} if rng.random() < 0.6 else {}
        engine.add(f"r{i}", rng.randint(1, 40), rng.randint(1, 16), tenant=f"t{i % 3}", **extra)
        if rng.random() < 0.5:
            engine.step(rng.randint(1, 5))
        if rng.random() < 0.15:
            engine.schedule()
            engine.abort(*(f"r{rng.randint(0, i)}" for _ in range(2)))
            engine.check()
        if rng.random() < 0.05:
            engine.scheduler.reset_prefix_cache(reset_running_requests=True)
            engine.check()
    engine.drain()
    engine.check_books()


def test_the_case_preempts():
    """What the property above is worth: its machine is tight enough."""
    engine = Watched(profile=TIGHT, cost=COST)
    for i in range(20):
        engine.add(f"r{i}", 8 + i, 16)
    engine.drain()
    assert engine.scheduler.observer.preemptions > 3


def test_more_requests_run_than_there_were_rows_at_first():
    """The arrays grow while requests come in."""
    engine = Shaped(profile=machine(kv_blocks=9000, max_active=2000, token_budget=8000))
    rows = len(engine.scheduler.queue.core.requests)
    for i in range(rows + 100):
        engine.add(f"r{i}", 2, 2 + i % 9, slo_tpot_ms=50)
    engine.step(1)
    assert len(engine.scheduler.running) > rows
    engine.drain()
    engine.check_books()


def test_an_empty_batch_has_nothing_to_protect():
    engine = Shaped()
    engine.look()
    assert decodes(engine.scheduler.queue.core) == (0, 0)
    assert engine.scheduler.hmas_snapshot().kv.predicted_peak_blocks == 0

"""Do the batch's arrays say what a plain loop over the running requests says?"""

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batch import Batch
from serving.scheduler import HMASScheduler, HMASSyncScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.shaped_scheduler import Shaped

TIGHT = machine(kv_blocks=30, max_active=8, token_budget=24)


class Watched(Shaped):
    """Checks the arrays after each step and each result, by a plain loop."""

    def check(self) -> None:
        """Arrays, decodes per lane and the coming step's decode part."""
        super().check()
        scheduler, batch = self.scheduler, self.scheduler.observer.batch
        state = batch.state(self.now_s)
        assert len(state.tokens) == len(batch) == len(scheduler.running)
        assert batch._context == sum(r.num_computed_tokens for r in scheduler.running)
        decoding: dict[str, int] = {}
        for slot, request in enumerate(batch._requests):
            name, computed = request.request_id, request.num_computed_tokens
            track = scheduler.observer.track(request)
            start = request.num_prompt_tokens + self.seen[name]
            produced = max(0, computed - request.num_prompt_tokens + 1)
            assert state.decoding[slot] == (computed >= start)
            assert state.tokens[slot] == max(computed, start)
            assert state.remaining[slot] == max(16.0, track.expected_tokens - produced)
            slack_s, tpot_ms = math.inf, track.view.slo.tpot_ms
            if computed >= start and tpot_ms and track.first_token_s is not None:
                slack_s = track.first_token_s + tpot_ms / 1000 * produced - self.now_s
            assert state.slack_s[slot] == pytest.approx(slack_s)
            if request.num_output_tokens > self.seen[name]:
                decoding[track.view.tenant] = decoding.get(track.view.tenant, 0) + 1
        lanes = scheduler.queue.lanes
        assert {x.tenant: x.decoding for x in lanes if x.decoding} == decoding
        assert state.shape.decodes == sum(state.decoding)
        assert state.shape.decode_context == sum(state.tokens[state.decoding])

    def schedule(self):
        """A step, and its shape as a loop over its requests has it."""
        output = super().schedule()
        if self.ahead or not output.num_scheduled_tokens:
            return output
        shape = self.scheduler.observer._in_flight[-1][1]
        prefill = square = decodes = 0
        for name, count in output.num_scheduled_tokens.items():
            request = self.requests[name]
            before = request.num_computed_tokens - count
            if before < request.num_prompt_tokens + self.seen[name]:
                prefill, square = prefill + count, square + count * before
            else:
                decodes += 1
        assert (shape.prefill_tokens, shape.decodes) == (prefill, decodes)
        assert shape.prefill_square == square
        answering = [
            self.requests[name] for name in output.num_scheduled_tokens
            if self.requests[name].num_output_tokens > self.seen[name]
        ]
        assert shape.decode_context == sum(r.num_computed_tokens for r in answering)
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
        scheduler_cls, profile=TIGHT, ahead=0 if sync else ahead, prefix_caching=caching
    )
    engine.decide(
        policy, choose_victims=rng.random() < 0.5, prefill_by_key=rng.random() < 0.5,
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
    engine = Watched(profile=TIGHT)
    for i in range(20):
        engine.add(f"r{i}", 8 + i, 16)
    engine.drain()
    assert engine.scheduler.observer.preemptions > 3


def test_more_requests_than_slots_make_room():
    engine = Watched(profile=machine(kv_blocks=2000, max_active=200, token_budget=400))
    for i in range(150):
        engine.add(f"r{i}", 2, 2 + i % 9, slo_tpot_ms=50)
    engine.drain()
    engine.check_books()


def test_an_empty_batch_has_an_empty_state():
    state = Batch().state(0.0)
    assert [len(column) for column in (state.tokens, state.slack_s, state.decoding)] == [0, 0, 0]
    assert (state.shape.decodes, state.shape.decode_context) == (0, 0)

"""Does a streaming-input session that waits for its client hold nobody up?

Between two inputs a session neither runs nor has left. vLLM counts it among the requests that
run when it admits others, because it keeps a slot in the model runner.
"""

import pytest

from serving import compat
from tests.serving.driven_scheduler import machine
from tests.serving.shaped_scheduler import Shaped


def with_a_paused_session(policy: str = "fcfs", max_active: int = 8, **limits) -> Shaped:
    """A session has answered once and waits for more."""
    engine = Shaped(profile=machine(200, max_active, 16))
    engine.add("session", 6, 2, resumable=True, tenant="talker")
    engine.step(4)
    assert not engine.scheduler.running
    engine.decide(policy, **limits)
    return engine


def admitted(engine: Shaped) -> list[str]:
    """Names in the order of their first admission."""
    return [name for step in engine.steps for name in step[1]]


@pytest.mark.parametrize("sessions", [0, 1])
def test_a_short_prompt_passes_a_long_one_under_serial(sessions):
    engine = Shaped(profile=machine(200, 8, 16))
    for i in range(sessions):
        engine.add(f"s{i}", 6, 2, resumable=True)
        engine.step(4)
    engine.decide("edf", prefill_by_key=True, max_partial_prefills=1)
    engine.add("long", 44, 3, slo_ttft_ms=600_000)
    engine.step()
    engine.add("urgent", 5, 3, slo_ttft_ms=3000)
    engine.step(2)
    assert admitted(engine)[-1] == "urgent", "before the long prompt has ended"
    engine.abort("s0")
    engine.drain()
    engine.check_books()


def test_limits_count_what_can_run_and_not_who_is_silent():
    engine = with_a_paused_session(max_active_requests=1)
    for i in range(4):
        engine.add(f"r{i}", 5, 3)
    engine.step(40)
    assert [engine.finished.get(f"r{i}") for i in range(4)] == ["stop"] * 4
    engine.abort("session")
    engine.check_books()


def test_vllms_own_slots_are_not_exceeded():
    engine = with_a_paused_session(max_active=2, max_active_requests=2)
    for i in range(6):
        engine.add(f"r{i}", 5, 3)
    for _ in range(30):
        engine.step()
        assert len(engine.scheduler.running) <= 1, "the session keeps one of two"
    assert set(engine.finished) == {"session", *(f"r{i}" for i in range(6))}


def test_a_session_goes_on_when_its_client_does():
    engine = with_a_paused_session("edf", max_active_requests=1, prefill_by_key=True)
    engine.add("r0", 20, 12)
    engine.step(3)
    engine.add("session", [7] * 5, 3, resumable=True)
    engine.step(30)
    assert (engine.got["session"], engine.finished["r0"]) == (3, "stop")


@pytest.mark.parametrize("caching", [False, True])
def test_a_preempted_session_waits_with_its_whole_prompt(caching):
    """It has grown since the session came; what the cache holds of it is not to be computed."""
    engine = Shaped(profile=machine(200, 8, 16), prefix_caching=caching)
    request = engine.add("session", 6, 2, resumable=True)
    engine.step(4)
    engine.add("session", list(range(100, 130)), 3, resumable=True)
    engine.step(3)
    assert request.num_tokens >= 36
    assert engine.scheduler.running == [request]
    engine.scheduler.running.remove(request)
    engine.scheduler._preempt_request(request, engine.now_s)
    cached = compat.cached_tokens(engine.scheduler, request)
    assert (cached > 6) == caching
    left = request.num_tokens - cached
    assert engine.fact("session", "prompt_tokens") == left
    assert engine.scheduler.queue.backlog_tokens == left


@pytest.mark.parametrize("ends", ["client closes", "client leaves"])
def test_a_session_that_was_answered_in_time_has_met_its_targets(ends):
    """However long its client takes to go on; vLLM aborts it either way."""
    engine = Shaped(profile=machine(200, 8, 16))
    engine.add("session", 6, 4, resumable=True, slo_ttft_ms=100, slo_tpot_ms=30)
    engine.add("other", 5, 40)
    engine.step(20)
    engine.add("session", [7] * 5, 3, resumable=True)
    engine.step(20)
    assert "session" not in engine.outcomes(), "it waits for its client"
    if ends == "client closes":
        engine.add("session", [7], 3)
    else:
        engine.abort("session")
    outcome = engine.outcomes()["session"]
    assert outcome.finish == {"client closes": "stop", "client leaves": "aborted"}[ends]
    assert (outcome.met, outcome.output_tokens) == (True, 4 + 3)
    assert outcome.tpot_s == pytest.approx(0.02)
    engine.drain()
    rows = engine.scheduler.hmas_snapshot().counters
    assert sum(row.received for row in rows) == sum(row.finished + row.aborted for row in rows) == 2

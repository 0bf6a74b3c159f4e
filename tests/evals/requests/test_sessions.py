"""Do sessions grow turn by turn, come when they should, and find their prefix in the cache?"""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pytest

from evals.arms.engine import build_simulated
from evals.requests.sending import Block
from evals.requests.sessions import FIRST_TOKEN_S, TOKEN_S, Sessions
from evals.suite.shapes import Change, Lognormal
from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS
from serving.contracts.settings import EngineSettings
from tests.evals.small_cases import MACHINE

CHATS = Sessions(
    TraceRequest(0.0, 1, 1, "chats", "interactive"), 0.05, 5.0, Lognormal(10, 30, 200), 1024,
    Lognormal(300, 900, 3000), Lognormal(100, 300, 1000), 8000,
)  # fmt: skip
BLOCK = Block(1200.0, 4)


def by_session(requests):
    """Turns by session: blocks after the two of the system prompt are a session's own."""
    turns = defaultdict(list)
    for one in requests:
        if len(one.prefix) > 2:
            turns[one.prefix[2]].append(one)
    return turns


def test_each_turn_begins_with_the_one_before_it_and_nothing_else_does():
    requests = CHATS.send(1.0, BLOCK).requests()
    assert len({one.prefix[:2] for one in requests}) == 1  # the system prompt
    assert all(len(one.prefix) == one.prompt_tokens // PREFIX_BLOCK_TOKENS for one in requests)
    assert all(one.prompt_tokens + one.output_tokens <= 8000 for one in requests)
    sessions = by_session(requests)
    assert len(sessions) > 20
    for turns in sessions.values():
        for one, following in pairwise(turns):
            assert following.prefix[: len(one.prefix)] == one.prefix
            assert following.prompt_tokens > one.prompt_tokens + one.output_tokens
    own = [set(turns[-1].prefix[2:]) for turns in sessions.values()]
    assert sum(map(len, own)) == len(set().union(*own))


def test_a_turn_comes_the_think_time_after_the_nominal_end_of_the_one_before():
    quick = replace(CHATS, think_s=Lognormal(1e-6, 2e-6, 1.0), prompts=Lognormal(600, 700, 800))
    sessions = by_session(quick.send(1.0, BLOCK).requests())
    pairs = [(one, two) for turns in sessions.values() for one, two in pairwise(turns)]
    assert len(pairs) > 100
    for one, two in pairs:
        nominal_s = FIRST_TOKEN_S + TOKEN_S * one.output_tokens
        assert two.arrival_s - one.arrival_s == pytest.approx(nominal_s, abs=1e-3)


def test_turns_and_rate_are_those_asked_for_and_the_block_does_not_begin_empty():
    long = Block(20_000.0, 1)
    sends = replace(CHATS, most_tokens=10**6)
    requests = sends.send(1.0, long).requests()
    assert len(requests) == pytest.approx(0.05 * 5 * 20_000, rel=0.1)
    assert len(sends.send(3.0, long)) == pytest.approx(3 * len(requests), rel=0.1)
    first = sum(one.arrival_s < 2000 for one in requests)
    assert first == pytest.approx(len(requests) / 10, rel=0.3)


def test_a_change_is_of_the_sessions_begun():
    quiet = Block(1200.0, 4, (Change(0.0, 600.0, float("inf")),))
    arrivals_s = CHATS.send(1.0, quiet).arrival_s
    assert (arrivals_s < 600).sum() > 5 * (arrivals_s > 1000).sum()


def test_the_cache_is_hit_by_what_was_said_before():
    machine = replace(MACHINE, prefix_caching=True, kv_blocks=4000, max_model_len=9000)
    requests = CHATS.send(1.0, BLOCK).requests()

    def served(offered):
        engine = build_simulated(machine, EngineSettings(), True)
        return sum(one.cached_tokens for one in engine.run(offered))

    hits = served(requests)
    tokens = sum(one.prompt_tokens for one in requests)
    assert 0.4 < hits / tokens < 0.95
    assert served([replace(one, prefix=()) for one in requests]) == 0

"""Does the page of requests inside tell what a simulation needs, also with a step in flight?"""

import json
from dataclasses import replace

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.contracts import ResidentPage, ResidentRequest, decode, encode
from serving.contracts.settings import EngineSettings
from serving.engines.resumed import Begun
from serving.engines.simulated import SimulatedEngine
from serving.plugin import routes
from tests.serving.driven_scheduler import Driven
from tests.serving.samples import decision
from tests.serving.served_ranks import HEADERS, TOKEN, EngineClient, live_engine, served
from tests.serving.simulation import stock_limits

SETTINGS = EngineSettings()


@pytest.fixture
def ranks(monkeypatch) -> EngineClient:
    monkeypatch.setenv("HMAS_TOKEN", TOKEN)
    monkeypatch.setattr(routes, "REGISTRY", CollectorRegistry())
    client = EngineClient(ranks=2)
    for rank, hook in enumerate(client.hooks):
        hook.engine.held = tuple(
            ResidentRequest(f"r{i}", 1.0, f"rank-{rank}", "batch", SETTINGS.slo_of("batch"), 10, 5)  # type: ignore[arg-type]
            for i in range(3)
        )
    return client


@pytest.fixture
def driven() -> Driven:
    """Six requests that do not fit into the KV cache together."""
    driven = Driven(SETTINGS)
    for i in range(6):
        driven.arrive(f"t{i}", 20, 12, extra={"slo_class": "interactive"})
    return driven


def test_running_requests_come_first_and_the_rest_is_counted(driven):
    for _ in range(4):
        driven.step()
    page = driven.scheduler.hmas_inside(10)
    running = [request.request_id for request in driven.scheduler.running]
    assert 1 < len(running) < 6
    waiting = [name for name in driven.inside if name not in running]
    assert [one.request_id for one in page.requests] == running + waiting
    assert [one.running for one in page.requests] == [True] * len(running) + [False] * len(waiting)
    assert page.left_out == 0
    assert page.now_s == driven.now_s
    short = driven.scheduler.hmas_inside(len(running) + 1)
    assert short.requests == page.requests[: len(running) + 1]
    assert short.left_out == len(waiting) - 1


def test_a_request_is_told_with_its_times_targets_and_progress(driven):
    driven.step()
    began_s = driven.now_s
    for _ in range(3):
        driven.step()
    one = driven.scheduler.hmas_inside(1).requests[0]
    assert one == ResidentRequest(
        "r0", 1000.0, "t0", "interactive", SETTINGS.slo_of("interactive"), 20, 28,  # type: ignore[arg-type]
        running=True, computed_tokens=23, output_tokens=4, admitted_s=1000.0,
        first_token_s=began_s,
    )  # fmt: skip


def test_a_preempted_request_waits_with_its_answer_and_nothing_computed(driven):
    while not driven.preemptions:
        driven.step()
    (back,) = [one for one in driven.scheduler.hmas_inside(10).requests if one.preemptions]
    assert (back.running, back.computed_tokens) == (False, 0)
    assert back.output_tokens == driven.guests[back.request_id].got_tokens > 0
    assert back.first_token_s is not None


def test_one_that_could_not_be_classified_is_left_out_and_counted(driven):
    driven.step()
    del driven.scheduler.observer.accounting.tracks["r1"]
    page = driven.scheduler.hmas_inside(10)
    assert "r1" not in {one.request_id for one in page.requests}
    assert (len(page.requests), page.left_out) == (5, 1)


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    answers=st.lists(st.integers(2, 16), min_size=12, max_size=12),
    steps=st.integers(1, 25), ahead=st.integers(0, 1),
)  # fmt: skip
def test_whatever_is_in_flight_a_simulation_serves_everybody_from_the_page(
    prompts, answers, steps, ahead
):
    driven = Driven(SETTINGS)
    for i, prompt in enumerate(prompts):
        driven.arrive(f"t{i % 3}", prompt, answers[i])
    for _ in range(steps):
        driven.step(ahead)
    page = driven.scheduler.hmas_inside(100)
    assert {one.request_id for one in page.requests} == set(driven.inside)
    for one in page.requests:
        assert one.output_tokens == driven.guests[one.request_id].got_tokens
        computed = driven.guests[one.request_id].request.num_computed_tokens
        assert computed - 1 <= one.computed_tokens <= computed
    engine = SimulatedEngine(driven.profile, SETTINGS)
    limits = stock_limits(driven.profile, follow_slack=True)
    assert engine.apply(decision(1, "edf", ttl_s=1000.0, limits=limits)).accepted
    lengths = [driven.guests[one.request_id].answer_tokens for one in page.requests]
    engine.resume([
        Begun(
            replace(
                one, arrival_s=one.arrival_s - page.now_s,
                admitted_s=one.admitted_s and one.admitted_s - page.now_s,
                first_token_s=one.first_token_s and one.first_token_s - page.now_s,
            ),
            length,
        )
        for one, length in zip(page.requests, lengths, strict=True)
    ])  # fmt: skip
    engine.run([])
    assert [o.output_tokens for o in engine.resumed_outcomes] == lengths
    assert engine.snapshot().policy_errors == 0


def test_the_route_wants_the_token_and_a_limit_that_makes_sense(ranks):
    for client in served(ranks):
        assert client.get("/hmas/inside").status_code == httpx.codes.UNAUTHORIZED
        for wrong in ("0", "x", "999999999"):
            reply = client.get(f"/hmas/inside?limit={wrong}", headers=HEADERS)
            assert reply.status_code == httpx.codes.UNPROCESSABLE_ENTITY
            assert "limit" in reply.text
        answers = client.get("/hmas/inside?limit=2", headers=HEADERS).json()["ranks"]
        pages = [decode(ResidentPage, answer) for answer in answers]
        assert [(len(page.requests), page.left_out) for page in pages] == [(2, 1), (2, 1)]
        assert pages[1].requests == ranks.hooks[1].engine.held[:2]


def test_of_several_ranks_a_controller_gets_the_first_ones_page(ranks):
    with live_engine(ranks) as engine:
        page = engine.inside(limit=2)
    assert [one.tenant for one in page.requests] == ["rank-0", "rank-0"]
    assert page.left_out == 1


def test_a_page_survives_the_way_through_json(driven):
    driven.step()
    page = driven.scheduler.hmas_inside(10)
    assert decode(ResidentPage, json.loads(json.dumps(encode(page)))) == page

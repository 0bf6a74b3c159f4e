"""Does the hook do inside a real vLLM what it does in the simulator?"""

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Sequence

import httpx
import pytest

from evals.live.load_generator import replay
from evals.live.server import Server, connect
from serving.compat import vllm_version
from serving.contracts import Decision, Outcome, Snapshot, TraceRequest, encode
from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable
from serving.perception.cost_model import StepShape
from tests.real.broken_policy import BREAK
from tests.real.conftest import MODEL, SETTINGS, RealServer

pytestmark = pytest.mark.real_vllm


def wait_for(what: Callable[[], bool], limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, "what the test waits for did not come"
        time.sleep(0.2)


def traffic(count: int, tenants: Sequence[str] = ("a", "b")) -> list[TraceRequest]:
    classes = ("interactive", "conversational")
    return [
        TraceRequest(
            arrival_s=0.05 * i,
            prompt_tokens=20 + 7 * (i % 9),
            output_tokens=8 + i % 5,
            tenant=tenants[i % len(tenants)],
            slo_class=classes[i % 2],
        )
        for i in range(count)
    ]


def send(server: RealServer, requests: Sequence[TraceRequest], run_id: str) -> list[Outcome]:
    replaying = replay(
        Server(server.url, MODEL, dialect="vllm"), requests, settings=SETTINGS, token_seed=1,
        timeout_s=120, run_id=run_id,
    )  # fmt: skip
    return asyncio.run(replaying).outcomes


def decision(snapshot: Snapshot, **changes: object) -> Decision:
    base = Decision("test", snapshot.epoch + 1, 60.0, "edf", {}, snapshot.limits, "test")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_vllm_loads_the_hook(server: RealServer, engine: LiveEngine) -> None:
    assert "SchedulerWithBrokenPolicy" in server.log.read_text()
    assert engine.snapshot().vllm_version == vllm_version()


def test_served_requests_carry_the_epoch_in_force_and_add_up(
    server: RealServer, engine: LiveEngine
) -> None:
    start = engine.snapshot()
    before = {(c.tenant, c.slo_class): c for c in start.counters}
    ack = engine.apply(decision(start, policy="slide"))
    assert ack.accepted
    assert engine.snapshot().policy == "slide"
    seen = send(server, traffic(24, ("add-a", "add-b")), "epoch-")
    assert all(outcome.finish == "length" for outcome in seen)
    page = engine.journal(start.journal_head)
    ours = [o for o in page.outcomes if o.tenant.startswith("add-")]
    assert len(ours) == 24
    assert {(o.epoch, o.policy) for o in ours} == {(ack.epoch, "slide")}
    assert sorted(o.output_tokens for o in ours) == sorted(o.output_tokens for o in seen)
    for counter in engine.snapshot().counters:
        if counter.tenant.startswith("add-"):
            assert (counter.tenant, counter.slo_class) not in before
            assert counter.received == counter.finished == 12
            assert counter.aborted == 0


def test_metrics_show_the_same_totals(server: RealServer, engine: LiveEngine) -> None:
    send(server, traffic(6, ("metrics-tenant",)), "metrics-")

    def totals() -> dict[str, float]:
        text = httpx.get(f"{server.url}/metrics", follow_redirects=True).text
        lines = [line for line in text.splitlines() if 'tenant="metrics-tenant"' in line]
        found: dict[str, float] = {}
        for line in lines:
            name = line.split("{")[0]
            found[name] = found.get(name, 0.0) + float(line.rsplit(" ", 1)[1])
        return found

    wait_for(lambda: totals().get("hmas_requests_finished_total") == 6.0, 10)
    assert totals()["hmas_requests_received_total"] == 6.0
    assert totals()["hmas_requests_aborted_total"] == 0.0


def test_limits_change_in_the_running_engine_inside_the_envelope(engine: LiveEngine) -> None:
    start = engine.snapshot()
    limits = dataclasses.replace(
        start.limits, token_budget=64, max_active_requests=10**6, prefill_share=0.1
    )
    ack = engine.apply(decision(start, limits=limits))
    assert ack.clamped == {"max_active_requests": start.envelope.max_active_requests}
    after = engine.snapshot().limits
    assert (after.token_budget, after.prefill_share) == (64, 0.1)
    assert engine.release("test").accepted
    assert engine.snapshot().limits == start.limits


def test_a_client_that_goes_away_is_counted_as_aborted(
    server: RealServer, engine: LiveEngine
) -> None:
    head = engine.snapshot().journal_head
    body = {
        "model": MODEL, "prompt": [200] * 50, "max_tokens": 1500, "ignore_eos": True,
        "stream": True, "vllm_xargs": {"tenant": "leaver"},
    }  # fmt: skip
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    wait_for(lambda: any(o.tenant == "leaver" for o in engine.journal(head).outcomes))
    outcome = next(o for o in engine.journal(head).outcomes if o.tenant == "leaver")
    assert (outcome.finish, outcome.met) == ("aborted", True)


def test_an_answer_that_ends_on_a_stop_string_is_served(
    server: RealServer, engine: LiveEngine
) -> None:
    head = engine.snapshot().journal_head
    body = {
        "model": MODEL, "prompt": "The letters are a b c d", "max_tokens": 400, "min_tokens": 4,
        "ignore_eos": True, "temperature": 1.0, "stop": list("aeit"), "n": 2,
        "vllm_xargs": {"tenant": "stopper"},
    }  # fmt: skip
    reply = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    assert [choice["finish_reason"] for choice in reply.json()["choices"]] == ["stop", "stop"]

    def left() -> list[Outcome]:
        return [o for o in engine.journal(head).outcomes if o.tenant == "stopper"]

    wait_for(lambda: len(left()) == 2)
    assert [(outcome.finish, outcome.met) for outcome in left()] == [("stop", True)] * 2
    assert all(0 < outcome.output_tokens < 400 for outcome in left())


def test_a_second_controller_is_refused(engine: LiveEngine) -> None:
    start = engine.snapshot()
    assert engine.apply(decision(start)).accepted
    refused = engine.apply(decision(engine.snapshot(), controller_id="another"))
    assert not refused.accepted
    assert "'test' owns this engine" in refused.reason
    assert not engine.renew("another", 10).accepted
    assert engine.snapshot().controller_id == "test"


def test_an_old_epoch_is_refused(engine: LiveEngine) -> None:
    start = engine.snapshot()
    assert engine.apply(decision(start)).accepted
    assert "not above" in engine.apply(decision(start)).reason


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "snapshot"), ("GET", "journal"), ("POST", "apply"), ("POST", "renew"),
     ("POST", "release")],
)  # fmt: skip
def test_control_routes_refuse_a_missing_or_wrong_token(
    server: RealServer, engine: LiveEngine, method: str, path: str, header: dict[str, str]
) -> None:
    before = engine.snapshot().epoch
    body = encode(decision(engine.snapshot()))
    response = httpx.request(method, f"{server.url}/hmas/{path}", headers=header, json=body)
    assert response.status_code == 401
    assert engine.snapshot().epoch == before


def test_a_message_that_does_not_fit_names_the_key(server: RealServer, engine: LiveEngine) -> None:
    body = {**encode(decision(engine.snapshot())), "epoch": "soon"}
    response = httpx.post(
        f"{server.url}/hmas/apply", json=body, headers={"Authorization": "Bearer test-token"}
    )
    assert response.status_code == 400
    assert "Decision.epoch" in json.dumps(response.json())


def test_a_policy_at_fault_falls_back_to_fcfs_and_no_request_fails(
    server: RealServer, engine: LiveEngine
) -> None:
    faults = engine.snapshot().policy_errors
    outcomes: list[Outcome] = []
    sender = threading.Thread(
        target=lambda: outcomes.extend(send(server, traffic(40), "broken-"))
    )
    sender.start()
    assert engine.apply(decision(engine.snapshot(), policy="sjf", reason=BREAK)).accepted
    sender.join()
    after = engine.snapshot()
    assert len(outcomes) == 40
    assert all(outcome.finish == "length" for outcome in outcomes)
    assert after.policy == "fcfs"
    assert after.policy_errors > faults
    assert after.last_error.startswith("policy sjf, now fcfs: ValueError")


def answers(server: RealServer, targets_ms: Sequence[float]) -> list[str]:
    """What as many greedy requests at once, each with its own TPOT target, are answered."""

    async def ask(client: httpx.AsyncClient, i: int, tpot_ms: float) -> str:
        body = {
            "model": MODEL, "prompt": f"The {i + 3} best ways to cross a river are", "seed": 1,
            "max_tokens": 40, "temperature": 0, "ignore_eos": True,
            "vllm_xargs": {"tenant": "paced", "slo_tpot_ms": tpot_ms},
        }  # fmt: skip
        response = await client.post(f"{server.url}/v1/completions", json=body)
        answer = response.raise_for_status().json()
        assert answer["usage"]["completion_tokens"] == 40
        return str(answer["choices"][0]["text"])

    async def ask_all() -> list[str]:
        async with httpx.AsyncClient(timeout=120) as client:
            return await asyncio.gather(*(ask(client, i, ms) for i, ms in enumerate(targets_ms)))

    return asyncio.run(ask_all())


def test_decodes_that_sit_out_steps_lose_no_token(server: RealServer, engine: LiveEngine) -> None:
    """The tight targets lie between a step of one decode and one of all, as the engine sees it."""
    loose = [60_000.0] * 9
    for size in (1, 9, 1, 9):  # the cost model learns what a decode adds to a step
        answers(server, loose[:size])
    start = engine.snapshot()
    alone_ms, all_ms = (
        1e3 * StepShape(decodes=n, decode_context=30 * n).seconds(start.cost)
        for n in (1, len(loose) + 3)
    )
    targets_ms = [alone_ms + share * (all_ms - alone_ms) for share in (0.3, 0.5, 0.7)] + loose
    limits = dataclasses.replace(start.limits, follow_slack=True)
    assert engine.apply(decision(start, limits=limits)).accepted
    together = answers(server, targets_ms)
    before = engine.snapshot()
    assert before.rules["rested_decodes"] == 0
    paced = dataclasses.replace(limits, pace_decodes=True)
    assert engine.apply(decision(before, limits=paced)).accepted
    apart = answers(server, targets_ms)
    # Who else is in a batch rounds a few answers another way; a lost token would change them all.
    assert sum(map(str.__eq__, apart, together)) > len(together) / 2
    after = engine.snapshot()
    assert after.rules["rested_decodes"] > 0  # how many, this machine's speed at the time decides
    assert after.policy_errors == before.policy_errors
    assert after.batch.running == 0


def test_a_dead_server_is_a_clear_error() -> None:
    with pytest.raises(EngineUnavailable, match="is `hmas serve` running there"):
        LiveEngine("http://127.0.0.1:9", "token", timeout_s=2).snapshot()


def test_turns_of_a_chat_are_found_in_the_prefix_cache(
    server: RealServer, engine: LiveEngine
) -> None:
    """SmolLM2's CPU server has blocks of 128 tokens: of 700 tokens five blocks can be shared."""
    start = engine.snapshot()
    assert start.envelope.prefix_caching
    turns = [TraceRequest(3.0 * i, 700, 4, "chat", "batch", prefix=(1, 2)) for i in range(3)]
    assert [o.finish for o in send(server, turns, "chat-")] == ["length"] * 3
    page = engine.journal(start.journal_head)
    came = [a for a in page.arrivals if a.tenant == "chat"]
    assert [a.cached_tokens for a in came] == [0, 640, 640]
    assert len({a.prefix for a in came}) == 1
    left = [o for o in page.outcomes if o.tenant == "chat"]
    assert [o.cached_tokens for o in left] == [0, 640, 640]
    (row,) = (c for c in engine.snapshot().counters if c.tenant == "chat")
    assert (row.prompt_tokens, row.cached_prompt_tokens) == (2100, 1280)

    def exported() -> bool:
        text = httpx.get(f"{server.url}/metrics", follow_redirects=True).text
        ours = (line for line in text.splitlines() if 'tenant="chat"' in line)
        return any(n.startswith("hmas_cached_prompt_tokens_total") and "1280" in n for n in ours)

    wait_for(exported, 10)


def test_answers_end_at_lengths_that_the_engine_cannot_see(
    server: RealServer, engine: LiveEngine
) -> None:
    requests = traffic(12)
    asked = connect(server.url, engine)
    assert asked.ends_answers
    cursor = engine.journal(0).cursor
    while (page := engine.journal(cursor)).cursor > cursor:
        cursor = page.cursor
    played = asyncio.run(replay(
        asked, requests, settings=SETTINGS, token_seed=1, timeout_s=120, run_id="unseen-"
    ))  # fmt: skip
    assert played.client["lengths_told"] is False
    assert [o.output_tokens for o in played.outcomes] == [r.output_tokens for r in requests]
    assert {o.finish for o in played.outcomes} == {"stop"}
    page = engine.journal(cursor)
    assert len(page.arrivals) == len(page.outcomes) == len(requests)
    assert {a.max_tokens for a in page.arrivals} == {max(r.output_tokens for r in requests)}
    assert sorted(o.output_tokens for o in page.outcomes) == sorted(
        r.output_tokens for r in requests
    )

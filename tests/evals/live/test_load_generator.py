"""What does the replay measure against a real HTTP server that speaks the streaming API?"""

import asyncio
import functools
import json
import time
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from evals.live.completion_stream import Served, stream_completion
from evals.live.load_generator import client_outcome, replay
from evals.live.request_body import completion_body, prompt_ids
from evals.live.run import CapacityError, capacity_rps, rate_rps
from evals.live.server import Server as RunningServer
from evals.progress import CaseProgress
from serving.contracts import SLO, Outcome, TraceRequest
from serving.contracts.settings import EngineSettings
from tests.evals.live.test_live_suite import WORKLOADS
from tests.evals.samples import offered
from tests.fakes import ENVELOPE, FakeEngine

SETTINGS = EngineSettings(slo_scale=1000)


class Server:
    """Answers POST /v1/completions; `behaviour` picks how, by request id."""

    def __init__(self, behaviour=lambda request_id: "ok"):
        self.behaviour = behaviour
        self.bodies = {}
        self.closed_early = asyncio.Event()

    async def handle(self, reader, writer):
        try:
            while await self.answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request_id = headers["x-request-id"]
        self.bodies[request_id] = body
        how = self.behaviour(request_id)
        if isinstance(how, int):
            writer.write(b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\nno" % how)
            await writer.drain()
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        if how == "hang":
            await writer.drain()
            await reader.read()
            self.closed_early.set()
            return False
        if how == "usage at the end":  # and a chunk that carries no token
            writer.write(b'data: {"choices": [{"text": "", "finish_reason": null}]}\n\n')
        wanted = body.get("vllm_xargs", {}).get("answer_tokens")
        length = body["max_tokens"] if wanted is None else wanted + (how == "too long")
        for done in range(1, length + 1):
            last = done == length
            reason = "stop" if wanted else "length"
            choice = {"text": "x", "finish_reason": reason if last else None}
            event: dict[str, Any] = {"choices": [choice]}
            if how not in ("no usage", "usage at the end"):
                event["usage"] = {"completion_tokens": done}
            if how == "broken" and done == 2:
                return False
            if how == "error event" and done == 2:
                event = {"error": {"message": "engine died"}}
            writer.write(f"data: {json.dumps(event)}\n\n".encode())
            await writer.drain()
        writer.write(b'data: {"choices": [], "usage": {"completion_tokens": %d}}\n\n' % done)
        writer.write(b"data: [DONE]\n\n")
        await writer.drain()
        return False


@asynccontextmanager
async def serving(server):
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        listener.close()


def hooked(url, **more):
    return RunningServer(url, "tiny", FakeEngine(), dialect="vllm", **more)


def watch(server, requests, of=hooked, **more):
    async def go():
        async with serving(server) as url:
            options = {"settings": SETTINGS, "token_seed": 1, "timeout_s": 30.0, **more}
            return await replay(of(url), requests, **options)

    return asyncio.run(go())


def play(server, requests, **more):
    return watch(server, requests, **more).outcomes


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"], ids=ascii)
def test_an_answer_may_hold_any_separator_of_lines(separator):
    """vLLM writes them into its JSON as they are; only a newline ends an event's line."""
    text = json.dumps({"text": f"a{separator}b", "finish_reason": "length"}, ensure_ascii=False)
    body = f'data: {{"choices": [{text}], "usage": {{"completion_tokens": 1}}}}\n\ndata: [DONE]\n\n'

    async def go():
        chunks = httpx.MockTransport(lambda _: httpx.Response(200, content=body.encode()))
        served = Served()
        async with httpx.AsyncClient(transport=chunks, base_url="http://x") as client:
            await stream_completion(client, b"{}", "r", served)
        return served

    served = asyncio.run(go())
    assert (served.output_tokens, served.finish) == (1, "length")


def test_a_served_request_is_timed_counted_and_judged():
    server = Server()
    left: list[Outcome] = []
    before_s = time.time()
    requests = [TraceRequest(0.0, 7, 3, "acme", "interactive"), TraceRequest(0.01, 5, 1, "b", "?")]
    outcomes = play(server, requests, run_id="x-", on_left=left.append)
    assert [o.request_id for o in outcomes] == ["x-r0", "x-r1"]
    assert [o.output_tokens for o in outcomes] == [3, 1]
    assert [o.finish for o in outcomes] == ["length", "length"]
    first, second = outcomes
    assert first.met
    assert first.slo == SETTINGS.slo_of("interactive")
    assert first.ttft_s is not None
    assert first.tpot_s is not None
    assert 0 < first.ttft_s <= first.e2e_s
    assert second.tpot_s is None
    assert before_s <= first.arrival_s <= first.finished_s <= time.time()
    assert second.arrival_s - first.arrival_s == pytest.approx(0.01, abs=1e-5)
    assert {o.request_id for o in left} == {"x-r0", "x-r1"}


def test_the_body_asks_for_exactly_the_traced_lengths_with_tenant_and_class():
    server = Server()
    play(server, [TraceRequest(0.0, 7, 3, "acme", "document", priority=2)])
    body = server.bodies["r0"]
    assert len(body["prompt"]) == 7
    assert body["max_tokens"] == 3
    assert body["ignore_eos"] is True
    assert body["stream"] is True
    assert body["priority"] == 2
    assert body["vllm_xargs"] == {"tenant": "acme", "slo_class": "document"}


ENDING = functools.partial(hooked, ends_answers=True, max_model_len=200)


def test_a_server_that_ends_answers_is_told_what_a_user_allows_and_not_how_long_they_are():
    server = Server()
    requests = [
        TraceRequest(0.0, 7, 3, max_tokens=11), TraceRequest(0.0, 7, 9), TraceRequest(0.0, 198, 2),
    ]  # fmt: skip
    played = watch(server, requests, of=ENDING)
    bodies = [server.bodies[f"r{i}"] for i in range(3)]
    assert [body["max_tokens"] for body in bodies] == [11, 9, 2]  # the last: all that fits
    assert [body["vllm_xargs"]["answer_tokens"] for body in bodies] == [3, 9, 2]
    (stop,) = {tuple(body["stop_token_ids"]) for body in bodies}
    assert not {*stop} & {token for body in bodies for token in body["prompt"]}
    assert [o.output_tokens for o in played.outcomes] == [3, 9, 2]
    assert {o.finish for o in played.outcomes} == {"stop"}
    assert played.client["wrong_lengths"] == 0
    assert played.client["lengths_told"] is False
    assert watch(Server(), requests).client["lengths_told"] is True


def test_answers_of_another_length_than_wanted_are_counted():
    server = Server(lambda request_id: "too long" if request_id == "r1" else "ok")
    played = watch(server, offered(0.0, 0.0, 0.0, output=3), of=ENDING)
    assert played.client["wrong_lengths"] == 1


def test_a_request_sent_late_says_so_and_its_first_token_counts_from_when_it_was_due():
    def busy(request_id):  # holds the loop, which is the client's as well, at the first one
        if request_id == "r0":
            time.sleep(0.3)
        return "ok"

    played = watch(Server(busy), offered(0.0, 0.05, output=3))
    late = played.client["lateness_s"]
    assert late["max"] >= late["p99"] >= late["p50"] >= 0
    assert late["max"] >= 0.25
    assert min(o.ttft_s for o in played.outcomes) >= 0.25


def test_a_replay_begins_at_the_start_of_its_clock_and_not_with_its_first_request():
    requests = offered(0.2, 0.3, output=1)
    played = watch(Server(), requests)
    since_start_s = [o.arrival_s - played.start_s for o in played.outcomes]
    assert since_start_s == pytest.approx([r.arrival_s for r in requests], abs=1e-5)


def test_gaps_between_tokens_are_kept_and_those_that_come_together_have_none():
    clock = iter([10.0, 10.5, 12.0, 12.1])
    served = Served()
    for tokens in (2, 3, 5):
        event = {"choices": [{"text": "x"}], "usage": {"completion_tokens": tokens}}
        served.note(event, next(clock))
    assert served.gaps_s == [0.0, 0.5, 1.5, 0.0]
    assert (served.first_s, served.last_s, served.output_tokens) == (10.0, 12.0, 5)


@pytest.mark.parametrize(("longest_s", "miss"), [(0.04, ""), (0.06, "itl")])
def test_a_gap_that_is_too_long_is_a_miss_of_its_own(longest_s, miss):
    gaps_s = [0.01, longest_s, 0.01]
    served = Served(0.0, 0.1, 0.2, 0.2, 4, "stop", gaps_s)
    request = TraceRequest(0.0, 7, 4, slo=SLO(ttft_ms=500, tpot_ms=40, itl_ms=50))
    one = client_outcome(0, "r0", request, served, due_mono=0.0, to_unix_s=0.0, settings=SETTINGS)
    assert (one.met, one.miss, one.late_gaps) == (not miss, miss, int(longest_s > 0.05))


def test_gaps_of_requests_that_do_not_count_are_not_in_the_figures():
    requests = offered(0.0, 0.05, output=3)
    for until_s, some in ((0.0, True), (-1.0, False)):
        played = watch(Server(), requests, counts=lambda due_s, end_s=until_s: due_s <= end_s)
        assert (played.client["itl_s"]["p99"] is not None) == some


def test_a_server_without_the_hook_is_asked_for_the_same_lengths_and_no_more():
    server = Server()
    requests = [TraceRequest(0.0, 7, 3, "acme", "document", priority=2)]
    (outcome,) = play(server, requests, of=lambda url: RunningServer(url, "tiny"))
    body = server.bodies["r0"]
    assert (len(body["prompt"]), body["max_tokens"], body["ignore_eos"]) == (7, 3, True)
    assert {"vllm_xargs", "priority", "stop_token_ids"} & set(body) == set()
    assert (outcome.output_tokens, outcome.tenant, outcome.met) == (3, "acme", True)
    assert outcome.slo == SETTINGS.slo_of("document")


def test_requests_of_one_replay_share_a_cache_salt_that_the_next_replay_does_not():
    server = Server()
    requests = offered(0.0, 0.0, output=1)
    play(server, requests, run_id="a-")
    play(server, requests, run_id="b-")
    salts = {name: body["cache_salt"] for name, body in server.bodies.items()}
    assert salts["a-r0"] == salts["a-r1"] != salts["b-r0"] == salts["b-r1"]


def test_prompts_are_unique_but_for_shared_prefixes_and_repeat_with_the_seed():
    plain = TraceRequest(0.0, 50, 1)
    assert prompt_ids(plain, 1, 0) == prompt_ids(plain, 1, 0)
    assert prompt_ids(plain, 1, 0) != prompt_ids(plain, 1, 1)
    assert prompt_ids(plain, 1, 0) != prompt_ids(plain, 2, 0)
    shared = TraceRequest(0.0, 700, 1, prefix=(9,))
    a, b = prompt_ids(shared, 1, 0), prompt_ids(shared, 1, 1)
    assert a[:512] == b[:512]
    assert a[512:] != b[512:]
    assert len(prompt_ids(TraceRequest(0.0, 600, 1, prefix=(9, 8)), 1, 0)) == 600
    assert all(100 <= token < 40_000 for token in a)
    assert len(completion_body("m", plain, 1, 0)["prompt"]) == 50


@pytest.mark.parametrize(
    ("how", "finish", "tokens"),
    [
        (500, "error", 0),
        (400, "error", 0),
        (429, "rejected", 0),
        (503, "rejected", 0),
        ("broken", "error", 1),
        ("error event", "error", 1),
        ("no usage", "length", 3),
        ("usage at the end", "length", 3),
    ],
)
def test_a_failure_is_an_outcome_and_the_others_go_on(how, finish, tokens):
    server = Server(lambda request_id: how if request_id == "r0" else "ok")
    bad, good = play(server, offered(0.0, 0.0, output=3))
    assert (bad.finish, bad.output_tokens) == (finish, tokens)
    assert bad.met == (finish == "length")
    assert good.finish == "length"


def test_a_server_that_is_not_there_is_an_outcome():
    outcomes = asyncio.run(
        replay(
            hooked("http://127.0.0.1:9"), offered(0.0), settings=SETTINGS, token_seed=0, timeout_s=5
        )
    ).outcomes
    assert [(o.finish, o.met, o.miss) for o in outcomes] == [("error", False, "not_served")]


@pytest.mark.parametrize(
    ("limits", "finish"),
    [({"timeout_s": 0.5}, "aborted"), ({"until_s": 0.5}, "unfinished")],
)
def test_a_request_that_takes_too_long_is_closed_and_missed(limits, finish):
    server = Server(lambda _: "hang")

    async def go():
        async with serving(server) as url:
            options = {"settings": SETTINGS, "token_seed": 1, "timeout_s": 30.0, **limits}
            played = await replay(hooked(url), offered(0.0), **options)
            await asyncio.wait_for(server.closed_early.wait(), 10)
            return played.outcomes

    outcomes = asyncio.run(go())
    assert [(o.finish, o.met) for o in outcomes] == [(finish, False)]


def test_cancelling_a_replay_closes_its_connections():
    server = Server(lambda _: "hang")

    async def go():
        async with serving(server) as url:
            task = asyncio.create_task(
                replay(
                    hooked(url),
                    offered(0.0),
                    settings=SETTINGS,
                    token_seed=1,
                    timeout_s=60,
                )
            )
            while not server.bodies:
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.closed_early.wait(), 10)

    asyncio.run(go())


def capacity(server, seconds):
    """Measured from another thread, as the commands do: the fake needs the loop."""
    engine = FakeEngine()

    async def go():
        async with serving(server) as url:
            measuring = functools.partial(
                capacity_rps, RunningServer(url, "tiny", engine), WORKLOADS[0], seconds,
                CaseProgress(),
            )  # fmt: skip
            return await asyncio.to_thread(measuring)

    return asyncio.run(go())


def test_capacity_is_what_a_closed_loop_completes_with_every_slot_taken():
    server = Server()
    try:
        assert capacity(server, 4.0) > 0
    except CapacityError:  # on a busy machine seconds may pass without an answer
        assert capacity(server, 60.0) > 0
    assert {f"capacity-c{i}" for i in range(ENVELOPE.max_active_requests)} <= server.bodies.keys()


def test_capacity_of_a_server_that_refuses_is_an_error_with_the_reason():
    with pytest.raises(CapacityError, match="HTTP 503"):
        capacity(Server(lambda _: 503), 5.0)


def test_the_rate_leaves_out_what_was_answered_before():
    finished_s = [100 + i * 0.1 for i in range(100)]
    assert rate_rps(finished_s, 101.95, 109.95) == pytest.approx(10.0)
    with pytest.raises(CapacityError, match="measure longer"):
        rate_rps(finished_s[:3], 100.0, 110.0)

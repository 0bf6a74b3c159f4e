"""Would the soak notice what it is there for? Its books, its draws, its reading of the log."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import asdict, replace

import httpx
import pytest

from evals.checks.soak.books import check_books
from evals.checks.soak.clients import Clients, TokenClock, Visit
from evals.checks.soak.decisions import CONTROLLER, EngineView, draw_action
from evals.checks.soak.report import Complaints, Memory, SoakReport, read_complaints
from evals.checks.soak.steering import Journal, read_answer
from evals.checks.soak.traffic import Errand, Kind, draw_errand
from evals.live.request_body import completion_body
from serving.contracts import (
    SLO,
    Arrival,
    ContractError,
    Decision,
    TenantCounters,
    TraceRequest,
    decode,
)
from serving.hook.lease import Lease
from serving.policies import POLICIES
from tests.evals.live.test_load_generator import Server, serving
from tests.evals.samples import outcome
from tests.fakes import ENVELOPE, STOCK

VISITS = [
    Visit(0, "whole", "finished"),
    Visit(1, "leaver", "left"),
    Visit(2, "leaver", "left"),  # before the engine saw it
    Visit(3, "leaver", "finished"),
    Visit(4, "bad", "refused", "HTTP 400"),
]
FINISHES = {0: "length", 1: "aborted", 3: "stop"}
NONE = Complaints(0, ())


def journal(finishes=None, arrived=(0, 1, 3)):
    finishes = FINISHES if finishes is None else finishes
    return Journal(
        [Arrival(i, f"cmpl-soak-{i}x-0", 0.0, "a", "batch", SLO(), 9, 9) for i in arrived],
        [replace(outcome(i, finish=finishes[i]), request_id=f"cmpl-soak-{i}x-0") for i in finishes],
    )


def index_of(engine_request_id):
    _, ours, rest = engine_request_id.partition("soak-")
    return int(rest.partition("x")[0]) if ours else None


def check(visits=VISITS, seen=None, sent=5, counted=(3, 2, 1)):
    before = (TenantCounters("a", "batch", 10, 9, 1),)
    received, finished, aborted = counted
    after = (TenantCounters("a", "batch", 10 + received, 9 + finished, 1 + aborted),)
    return check_books(visits, sent, journal() if seen is None else seen, index_of, before, after)


def test_balanced_books_add_up():
    books = check()
    assert not books.mismatches
    assert books.text() == (
        "5 asked for = 2 finished + 1 aborted + 1 refused + 1 left before the engine saw them"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seen": journal({0: "length", 1: "aborted"})}, "ended it 0 times"),
        ({"seen": journal(arrived=(0, 1))}, "received it 0 times and ended it 1 times"),
        ({"seen": journal(arrived=(0, 0, 1, 3))}, "received it 2 times"),
        ({"seen": journal(FINISHES | {0: "aborted"})}, "its client saw the end, the engine says"),
        ({"seen": journal(FINISHES | {4: "length"}, (0, 1, 3, 4))}, "but the engine got it"),
        ({"seen": journal(FINISHES | {9: "length"}, (0, 1, 3, 9))}, "totals say 3 received"),
        ({"sent": 6}, "6 requests were sent, 5 have ended"),
        ({"counted": (3, 3, 1)}, "totals say 3 finished, the journal 2"),
        ({"visits": [*VISITS[:4], Visit(4, "whole", "refused", "HTTP 400: no")]}, "HTTP 400: no"),
        ({"visits": [Visit(0, "whole", "failed", "HTTP 500"), *VISITS[1:]]}, "HTTP 500"),
    ],
)  # fmt: skip
def test_whatever_does_not_add_up_is_named(change, says):
    books = check(**change)
    assert any(says in mismatch for mismatch in books.mismatches)


def with_two_answers(finishes, flavour="twice", answers=2, end="finished"):
    """The books with one more request, whose answers the engine ended as `finishes` says."""
    seen = journal()
    for number, finish in enumerate(finishes):
        name = f"{number}_cmpl-soak-5x-0"
        seen.arrivals.append(Arrival(9, name, 0.0, "a", "batch", SLO(), 9, 9))
        seen.outcomes.append(replace(outcome(5, finish=finish), request_id=name))
    served = sum(finish != "aborted" for finish in finishes)
    counted = (3 + len(finishes), 2 + served, 1 + len(finishes) - served)
    kind: Kind = "whole" if end == "finished" else "leaver"
    visits = [*VISITS, Visit(5, kind, end, "", flavour, answers)]
    return check(visits=visits, seen=seen, sent=6, counted=counted)


def test_two_answers_of_one_request_are_two_requests_of_the_engine():
    books = with_two_answers(["stop", "length"])
    assert not books.mismatches
    assert (books.sent, books.asked, books.received) == (6, 7, 5)
    left = with_two_answers(["aborted"], end="left")
    assert not left.mismatches, "its client left before the engine saw the other one"
    assert left.unseen == 2
    assert with_two_answers(["stop"]).mismatches
    assert with_two_answers(["stop", "length", "length"]).mismatches


@pytest.mark.parametrize("flavour", ["stop", "grammar"])
def test_an_answer_that_its_client_saw_whole_is_no_abort(flavour):
    assert not with_two_answers(["stop"], flavour, 1).mismatches
    assert with_two_answers(["aborted"], flavour, 1).mismatches


def test_strangers_and_lost_events_are_named():
    seen = journal()
    seen.outcomes.append(replace(outcome(8), request_id="cmpl-somebody-else"))
    seen.lost = 2
    named = " ".join(check(seen=seen).mismatches)
    assert "1 events in the journal of requests that nobody sent" in named
    assert "2 journal events were overwritten" in named


def test_every_kind_of_request_comes_up_and_the_seed_decides():
    def draw():
        rng = random.Random(3)
        return [
            draw_errand(rng, i, model="m", rate_rps=2.0, max_model_len=2048, adapters=("a", "b"))
            for i in range(400)
        ]

    errands = draw()
    assert errands == draw()
    begins = Counter(
        tuple(prompt[:512])
        for errand in errands
        if errand.kind != "bad" and len(prompt := json.loads(errand.body)["prompt"]) > 512
    )
    assert len(begins) == 4, "requests with the same prefix send the same tokens"
    assert min(begins.values()) > 5
    kinds = Counter(errand.kind for errand in errands)
    assert set(kinds) == {"whole", "leaver", "bad"}
    assert kinds["whole"] > 200
    flavours = Counter(errand.flavour for errand in errands if errand.kind != "bad")
    assert set(flavours) == {"plain", "grammar", "stop", "twice", "adapter"}
    bodies = [json.loads(errand.body) for errand in errands if errand.kind == "whole"]
    assert {body["model"] for body in bodies} == {"m", "a", "b"}
    assert sum(errand.wait_s for errand in errands) / 400 == pytest.approx(0.5, rel=0.2)
    for errand in errands:
        both = (errand.leave_after_tokens, errand.leave_after_s)
        assert (both != (None, None)) == (errand.kind == "leaver")


def applied(action):
    """The decision in a call of /hmas/apply; None if the route would not take it."""
    try:
        return decode(Decision, json.loads(action.body))
    except (ValueError, ContractError):
        return None


def test_the_engine_refuses_what_must_be_refused_and_takes_good_decisions():
    rng, names = random.Random(5), Counter[str]()
    for _ in range(1500):
        lease = Lease(Decision("", 0, 0.0, "fcfs", {}, STOCK), ENVELOPE)
        held = Decision(CONTROLLER, 7, 60.0, "fcfs", {}, STOCK)
        assert lease.accept(held, 0.0).accepted
        action = draw_action(rng, EngineView(ENVELOPE, 7, leased=True))
        names[action.name] += 1
        if action.path != "/hmas/apply" or action.token is not None:
            continue
        decision = applied(action)
        accepted = decision is not None and lease.accept(decision, 1.0).accepted
        if action.name == "decision":
            assert accepted, action
        if action.must_be_refused:
            assert not accepted, action
        inside = asdict(lease.decision.limits)
        assert 1 <= inside["token_budget"] <= ENVELOPE.token_budget
    assert len(names) == 10
    assert names["decision"] > 600


def test_every_policy_is_decided_sooner_or_later():
    rng = random.Random(1)
    actions = [draw_action(rng, EngineView(ENVELOPE, 1, leased=False)) for _ in range(1500)]
    good = [applied(action) for action in actions if action.name == "decision"]
    assert {decision.policy for decision in good if decision} == set(POLICIES)


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"ranks": [{"accepted": True}]}, "accepted"),
        (200, {"ranks": [{"accepted": True}, {"accepted": False}]}, "refused"),
        (200, {"surprise": 1}, "broken"),
        (400, {}, "malformed"),
        (401, {}, "denied"),
        (503, {}, "broken"),
    ],
)
def test_answers_of_the_control_routes_are_told_apart(status, body, answer):
    assert read_answer(httpx.Response(status, json=body)) == answer


def test_time_without_a_token_counts_only_while_somebody_waits():
    now_s = [0.0]
    clock = TokenClock(lambda: now_s[0])

    def at(seconds, what):
        now_s[0] = seconds
        what()

    at(0, clock.enter)
    at(2, clock.token)
    at(3, clock.enter)
    at(6, clock.leave)
    assert clock.longest_s == 4
    at(7, clock.leave)
    at(100, clock.enter)
    at(101, clock.token)
    assert clock.longest_s == 5


LOG = """\
(APIServer pid=1) ERROR 11-22 13:00:00 [old.py:1] before the soak
(EngineCore pid=7) INFO 11-22 13:22:11 [core.py:12] no ERROR here
(EngineCore pid=7) WARNING 11-22 13:22:12 [hook.py:3] lease of 4.5 s ended
(EngineCore pid=7) WARNING 11-22 13:22:19 [hook.py:3] lease of 7.25 s ended
(EngineCore pid=7) ERROR 11-22 13:22:13 [core.py:12] H-MAS fault
(EngineCore pid=7) ERROR 11-22 13:22:13 [core.py:12] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-22 13:22:13 [core.py:12] ZeroDivisionError
ERROR:    Exception in ASGI application
Traceback (most recent call last):
INFO:     127.0.0.1:1 - "POST /v1/completions HTTP/1.1" 400 Bad Request
"""


def test_complaints_are_counted_once_each_and_only_those_of_the_soak(tmp_path):
    log = tmp_path / "vllm.log"
    log.write_text(LOG)
    errors, warnings = read_complaints(log, LOG.index("\n") + 1)
    assert errors.count == 3
    assert errors.first == (
        "H-MAS fault", "Exception in ASGI application", "Traceback (most recent call last):"
    )  # fmt: skip
    assert (warnings.count, warnings.first) == (2, ("2 x lease of 4.5 s ended",))


def report(**changes):
    base = SoakReport(
        seconds=60.0, seed=1, books=check(), memory_mib=Memory(1, 2, 4, 3), errors=NONE,
        warnings=NONE, policy_faults=0, last_fault="", answers={"decision": {"accepted": 3}},
        broken=(), longest_without_token_s=1.0, most_waiting=2, preemptions=0,
    )  # fmt: skip
    return replace(base, **changes)


def test_a_soak_that_held_says_so():
    good = report()
    assert good.problems == []
    document = good.as_json()
    assert document["ok"] is True
    assert document["books"]["ends"] == {"finished": 2, "left": 2, "refused": 1, "failed": 0}
    assert json.loads(json.dumps(document)) is not None
    assert good.lines() == ["no problem found"]
    assert ("books", "balanced") in good.sheets()[0].rows


@pytest.mark.parametrize(
    "change",
    [
        {"books": check(sent=6)},
        {"errors": Complaints(1, ("boom",))},
        {"policy_faults": 1, "last_fault": "boom"},
        {"broken": ("stale epoch was accepted",)},
    ],
)
def test_a_soak_that_did_not_hold_has_problems(change):
    bad = report(**change)
    assert bad.problems
    assert bad.as_json()["ok"] is False


def test_each_visit_ends_as_its_client_saw_it(monkeypatch):
    body = completion_body("m", TraceRequest(0.0, 3, 40), 1, 0)
    good = json.dumps(body).encode()
    never = Errand("whole", good, 1e9)
    plan = [
        (Errand("whole", good, 0.0), "ok", "finished"),
        (Errand("leaver", good, 0.0, leave_after_tokens=2), "ok", "left"),
        (Errand("leaver", good, 0.0, leave_after_s=0.2), "hang", "left"),
        (Errand("whole", good, 0.0), "broken", "failed"),
        (Errand("whole", good, 0.0), 404, "refused"),
        (Errand("bad", good, 0.0), 400, "refused"),
        (Errand("bad", good, 0.0), 500, "failed"),
    ]
    drawn = iter([errand for errand, _, _ in plan] + [never])
    monkeypatch.setattr("evals.checks.soak.clients.draw_errand", lambda *_, **__: next(drawn))
    server = Server(lambda request_id: plan[int(request_id.split("-")[1].rstrip("x"))][1])

    async def go():
        async with serving(server) as url:
            clients = Clients(url, "m", 2048, seed=1, rate_rps=1.0)
            await clients.send_for(60.0, lambda: False)
            return clients

    clients = asyncio.run(go())
    assert clients.sent == len(plan)
    ends = {visit.index: visit.end for visit in clients.visits}
    assert [ends[i] for i in range(len(plan))] == [end for _, _, end in plan]
    seen = {clients.index_of(f"cmpl-{request_id}-0-ab") for request_id in server.bodies}
    assert seen == set(ends)
    assert clients.index_of("cmpl-another-3x-0-ab") is None


def test_nothing_more_is_sent_to_an_engine_that_is_gone():
    clients = Clients("http://127.0.0.1:9", "m", 2048, seed=1, rate_rps=1000.0)
    asyncio.run(clients.send_for(60.0, lambda: clients.sent >= 3))
    assert [visit.end for visit in clients.visits] == ["failed"] * 3

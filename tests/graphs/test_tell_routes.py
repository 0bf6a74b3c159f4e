"""The words of `hmas ui`, request by request: the dialogue of `hmas tell`, and who may not."""

import sqlite3

import pytest
from starlette.testclient import TestClient

from graphs import dialogue
from graphs.tell_routes import TellRoutes
from hmas_agents.intent.told import ToldStore, told_path
from hmas_agents.ledger import LedgerReader
from hmas_agents.ui.ledgers import Ledgers
from hmas_agents.ui.server import build_app
from tests.graphs.fake_loop import FORECAST, engine_of_words, looking, serve, words_config
from tests.graphs.hostile_words import HOSTILE, fuzzed

PORT = 8400
URL = f"http://127.0.0.1:{PORT}"
TOKEN = "of-this-start"
FROM_THE_PAGE = {"origin": URL, "content-type": "application/json"}


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(dialogue, "foresee", lambda *_: FORECAST)
    return engine_of_words(monkeypatch)


@pytest.fixture
def settings(tmp_path):
    return words_config(tmp_path)


@pytest.fixture
def ledger(settings):
    return settings.ledger.path


@pytest.fixture
def loop(engine, ledger):
    loop = looking(engine, ledger)
    yield loop
    loop.loop.close()


def opened(settings, **changes):
    """A browser of the user who opened the printed address."""
    words = TellRoutes(settings, **changes).routes()
    app = build_app(Ledgers([settings.ledger.path]), PORT, TOKEN, more=words)
    client = TestClient(app, base_url=URL, headers=FROM_THE_PAGE)
    assert client.get(f"/?token={TOKEN}").status_code == 200
    return client


@pytest.fixture
def client(engine, settings):
    return opened(settings)


def tell(client, text):
    return client.post("/api/tell", json={"text": text}).json()


def told(ledger):
    with ToldStore(told_path(ledger)) as store:
        return store.texts(9)


def changes_of(ledger):
    """How many changes wait for a controller, or are known to it."""
    with sqlite3.connect(told_path(ledger)) as file:
        return file.execute("SELECT count(*) FROM changes").fetchone()[0]


def test_words_come_into_force_by_a_yes_and_end_when_taken_back(client, engine, ledger, loop):
    said = tell(client, "expect 4x traffic from a until 02:00")
    assert (said["told"], said["state"], said["waits_for"]) == (1, "waiting", "approval")
    assert said["understood"] == [["expect", "a", "4x requests", "until 02:00"]]
    assert said["forecast"] == FORECAST
    assert (changes_of(ledger), engine.contract().epoch) == (0, 0)
    said = client.post("/api/tell/1", json={"answer": "y", "changes": said["changes"]}).json()
    assert (said["state"], said["waits_for"]) == ("approved", "")
    loop.short(62.0)
    serve(engine, 10, at_s=62.0, met=False)
    loop.short(70.0)
    answer = client.get("/api/told").json()
    (listed,) = answer["told"]
    assert (answer["problem"], listed["text"]) == ("", "expect 4x traffic from a until 02:00")
    assert listed["lines"] == [
        "preview: a 71% -> 93%",
        "expect a 4x requests from 00:01 until 02:00   in force",
        "measured: a 100.0% -> 0.0%, of 15 requests before and 10 since",
    ]
    assert listed["changes"][0]["change"]["factor"] == 4.0
    assert client.post("/api/told/1/untell", json={}).json() == {"told": 1, "taken_back": True}
    loop.short(72.0)
    assert client.get("/api/told").json()["told"] == []
    reply = client.post("/api/told/1/untell", json={})
    assert (reply.status_code, reply.json()["error"]) == (409, "1 is not in force: it is over")
    with LedgerReader(ledger) as reader:
        triggers = [row.record.trigger for row in reader.list_decisions()]
    assert triggers[-4:] == ["person,tell", "told", "person,untell", "told"]


def test_a_no_changes_nothing(client, ledger, loop):
    tell(client, "expect 4x traffic from a")
    said = client.post("/api/tell/1", json={"answer": "n"}).json()
    assert (said["state"], said["waits_for"], changes_of(ledger)) == ("declined", "", 0)
    reply = client.post("/api/tell/1", json={"answer": "y"})
    assert reply.status_code == 422
    assert "does not wait for an answer: it is declined" in reply.json()["error"]


def test_unclear_words_lead_to_one_question(client, ledger, loop):
    said = tell(client, "make it better")
    assert (said["waits_for"], said["understood"]) == ("words", [])
    assert "Whom is it about" in said["question"]
    said = client.post("/api/tell/1", json={"text": "expect 4x traffic from a"}).json()
    assert (said["waits_for"], said["text"]) == ("approval", "expect 4x traffic from a")
    assert tell(client, "make it better")["waits_for"] == "words"
    said = client.post("/api/tell/2", json={"text": "still better"}).json()
    assert (said["waits_for"], said["state"]) == ("", "unclear")
    assert changes_of(ledger) == 0


def test_a_question_may_be_left_alone(client, ledger, loop):
    tell(client, "make it better")
    assert client.post("/api/told/1/untell", json={}).status_code == 200
    assert told(ledger)[0].state == "declined"
    assert client.post("/api/tell/1", json={"text": "expect 4x from a"}).status_code == 422


def test_what_cannot_act_is_refused_with_its_reason(client, ledger, loop):
    said = tell(client, "shed half of a")
    assert (said["state"], said["waits_for"]) == ("refused", "")
    assert "single tenants cannot yet" in said["note"]


def test_what_was_seen_is_what_is_approved(client, ledger, loop):
    """A yes to a preview that somebody has replaced meanwhile approves nothing."""
    seen = tell(client, "expect 4x traffic from a")["changes"]
    edited = client.post("/api/tell/1", json={"answer": "edit", "text": "expect 2x from a"}).json()
    assert edited["understood"] == [["expect", "a", "2x requests", "until it is taken back"]]
    reply = client.post("/api/tell/1", json={"answer": "y", "changes": seen})
    assert (reply.status_code, changes_of(ledger)) == (409, 0)
    assert "look at it again" in reply.json()["error"]
    again = client.post("/api/tell/1", json={}).json()
    assert again["changes"] == edited["changes"]
    client.post("/api/tell/1", json={"answer": "y", "changes": again["changes"]})
    assert told(ledger)[0].changes[0].change.factor == 2.0


def test_what_a_page_began_goes_on_after_the_server_has_ended(client, settings, ledger, loop):
    tell(client, "expect 4x traffic from a")
    said = opened(settings).post("/api/tell/1", json={}).json()
    assert (said["waits_for"], said["forecast"]) == ("approval", FORECAST)
    with dialogue.open_dialogue(settings, asks_model=False) as terminal:
        terminal.answer(terminal.resume(1), "y")
    assert told(ledger)[0].state == "approved"


@pytest.mark.parametrize(
    "body",
    [{"answer": "yes"}, {"answer": "Y"}, {"answer": "edit"}, {"text": "y"}, {"answer": True},
     {"answer": "y", "text": "something else"}, {"answer": "y", "told": 2}, [], "y", None],
)  # fmt: skip
def test_only_an_answer_that_fits_counts(client, ledger, loop, body):
    tell(client, "expect 4x traffic from a")
    reply = client.post("/api/tell/1", json=body)
    assert reply.status_code == 422
    assert reply.json()["error"]
    assert (told(ledger)[0].state, changes_of(ledger)) == ("waiting", 0)


def test_a_question_is_no_preview_that_could_be_approved(client, ledger, loop):
    tell(client, "make it better")
    assert client.post("/api/tell/1", json={"answer": "y"}).status_code == 422
    assert told(ledger)[0].state == "waiting"


def test_a_number_that_was_not_told_is_said_to_be_none(client, loop):
    tell(client, "make it better")
    for path in ("/api/tell/7", "/api/told/7/untell", f"/api/tell/{2**70}"):
        reply = client.post(path, json={})
        assert (reply.status_code, "nothing was told as number" in reply.text) == (422, True)


WRITES = [
    ("/api/tell", {"text": "expect 4x traffic from a"}),
    ("/api/tell/1", {"answer": "y"}),
    ("/api/told/1/untell", {}),
]


@pytest.mark.parametrize(("path", "body"), WRITES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"host": "evil.example"}, 421),
        ({"cookie": f"hmas-ui-{PORT}=guess"}, 403),
        ({"cookie": ""}, 403),
    ],
)
def test_a_write_from_elsewhere_does_nothing(client, ledger, loop, path, body, headers, status):
    """As for prompts: only the page itself, and only with the token of this start."""
    tell(client, "expect 4x traffic from a")
    if "cookie" in headers:
        client.cookies = {}
    assert client.post(path, json=body, headers=headers).status_code == status
    assert [(each.state, each.changes) for each in told(ledger)] == [("waiting", ())]


def test_what_was_told_is_shown_to_nobody_else(client, loop):
    tell(client, "expect 4x traffic from a")
    client.cookies = {}
    reply = client.get("/api/told")
    assert (reply.status_code, "4x" in reply.text) == (403, False)


def test_hostile_and_clumsy_words_do_no_harm(client, engine, ledger, loop):
    """Each is refused, asked about or shown; no answer but a yes puts anything in force."""
    texts = [text for text in HOSTILE if text.encode(errors="ignore").decode() == text]
    for text in [*texts, *fuzzed(100)]:
        reply = client.post("/api/tell", json={"text": text})
        assert reply.status_code in {200, 413, 422}, text
        if reply.status_code == 200:
            assert reply.json()["state"] in {"waiting", "refused", "unclear"}
        else:
            assert reply.json()["error"]
    loop.short(62.0)
    assert (engine.contract().epoch, engine.limits.shed, changes_of(ledger)) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b'{"text": "' + b"a" * 1_000_000 + b'"}', 413, "at most 1000000 bytes"),
        (b'{"text": "' + b"a" * 900_000 + b'"}', 422, "900000 letters are too many"),
        (b'{"text": "expect 4x from a\\u0000"}', 422, "control characters"),
        (b'{"text": "\\u001b[2J expect 4x from a"}', 422, "control characters"),
        (b'{"text": "\\u0085"}', 422, "say what you want"),
        (b'{"text": "\\ud800 expect 4x from a"}', 422, "Invalid JSON"),
        (b'{"text": " \\n "}', 422, "say what you want"),
        (b'{"text": 4}', 422, "valid string"),
        (b'{"text": "expect 4x from a", "answer": "y"}', 422, "not permitted"),
        (b"[" * 10_000, 422, "recursion limit"),
        (b"\xff\xfe", 422, "Invalid JSON"),
        (b"", 422, "Invalid JSON"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_kept(client, ledger, body, status, why):
    reply = client.post("/api/tell", content=body)
    assert reply.status_code == status
    assert why in reply.json()["error"]
    assert not told_path(ledger).exists()


def test_without_an_engine_or_a_token_it_says_so_and_keeps_nothing(client, engine, settings):
    assert tell(client, "expect 4x traffic from a")["waits_for"] == "approval"
    engine.down = True
    reply = client.post("/api/tell", json={"text": "expect 2x traffic from a"})
    assert (reply.status_code, reply.json()["error"]) == (503, "fake engine is down")
    settings.engine.token_file.unlink()
    reply = client.post("/api/tell/1", json={"answer": "y"})
    assert (reply.status_code, "no token at" in reply.json()["error"]) == (503, True)
    assert [each.state for each in told(settings.ledger.path)] == ["waiting"]


def test_a_page_that_cannot_tell_says_why(engine, settings):
    client = opened(settings, problem="several ledgers are shown")
    assert client.get("/api/told").json()["problem"] == "several ledgers are shown"
    for path, body in WRITES:
        reply = client.post(path, json=body)
        assert (reply.status_code, reply.json()["error"]) == (422, "several ledgers are shown")


def test_a_file_that_others_may_write_is_not_used(client, ledger, loop):
    tell(client, "expect 4x traffic from a")
    told_path(ledger).chmod(0o666)
    for reply in (client.get("/api/told"), client.post("/api/tell/1", json={"answer": "y"})):
        assert (reply.status_code, "others may write it" in reply.json()["error"]) == (422, True)

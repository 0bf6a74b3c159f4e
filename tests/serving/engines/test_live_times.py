"""A renewal that is answered too late has not happened, and a long page may take its time."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serving.contracts import Ack, JournalPage, encode
from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable
from tests.fakes import FakeEngine
from tests.serving.samples import decision
from tools.session import ControlSession

LEASE_S = 0.3  # of which a third may pass until an answer
ACK = encode(Ack(True, 1, "in force")) | {"rank": 0}
PAGE = encode(JournalPage(0, 0)) | {"rank": 0}


@dataclass
class Server:
    """Answers in full once `go` is set, or after a while, so that a patient caller ends, too."""

    url: str = ""
    bytewise: bool = False
    go: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def answer(self) -> None:
            body = json.dumps({"ranks": [PAGE if self.command == "GET" else ACK]}).encode()
            try:
                if not server.bytewise:
                    server.go.wait(4 * LEASE_S)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for i in range(len(body)):
                    self.wfile.write(body[i : i + 1])
                    if server.bytewise:  # no read waits for long, but all of them do
                        server.go.wait(LEASE_S / 20)
            except ConnectionError:  # the caller has hung up
                pass

        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}"
    try:
        yield server
    finally:
        server.go.set()
        http.shutdown()
        thread.join()
        http.server_close()



@pytest.mark.parametrize("bytewise", [False, True], ids=["no answer in time", "one that drips"])
def test_a_late_answer_is_no_renewal_and_no_decision(bytewise):
    with serving(Server(bytewise=bytewise)) as server:
        engine = LiveEngine(server.url, "token")
        with pytest.raises(EngineUnavailable):
            engine.renew("me", LEASE_S)
        with pytest.raises(EngineUnavailable):
            engine.apply(decision(1, ttl_s=LEASE_S))
        engine.close()


@pytest.mark.parametrize("ttl_s", [0.0, -1.0])
def test_a_lease_that_makes_no_sense_is_for_the_engine_to_refuse(ttl_s):
    with serving(Server()) as server:
        server.go.set()
        engine = LiveEngine(server.url, "token")
        assert engine.renew("me", ttl_s) == Ack(True, 1, "in force"), "the engine was asked"
        engine.close()


def test_a_page_may_take_longer_than_a_lease():
    with serving(Server()) as server:
        engine = LiveEngine(server.url, "token", look_s=LEASE_S / 3)
        assert engine.journal(0) == JournalPage(0, 0)
        server.go.clear()
        with pytest.raises(EngineUnavailable):
            engine.snapshot()
        engine.close()


def test_a_decision_that_was_not_answered_is_sent_again_and_not_just_renewed(monkeypatch):
    engine = FakeEngine()
    session = ControlSession(engine, "me", 10.0, dry_run=False)
    assert session.change("edf").accepted
    take = engine.apply

    def lost(sent):
        take(sent)
        raise EngineUnavailable("the answer was lost")

    with monkeypatch.context() as lossy:
        lossy.setattr(engine, "apply", lost)
        with pytest.raises(EngineUnavailable):
            session.change("slide")
    assert engine.policy == "slide", "in force, though nobody was told"
    assert session.renew().accepted
    assert engine.policy == "edf", "what the controller knows of"

"""Do the clients of a replay have a process of their own, that ends with the replay?"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import psutil
import pytest

from evals.live.load_generator import played_apart, replay
from evals.live.server import Server
from evals.sim.workers import WorkerError
from serving.contracts import Outcome
from serving.contracts.settings import EngineSettings
from tests.evals.fake_openai import FakeOpenAI, serving
from tests.evals.samples import offered
from tests.source_tree import ROOT

SETTINGS = EngineSettings(slo_scale=1000)
REQUESTS = offered(0.0, 0.05, 0.1, 0.15, output=3)


class Counting(FakeOpenAI):
    """Knows when it has been asked for all answers of a replay."""

    def __init__(self, requests):
        super().__init__()
        self.pages["/metrics"] = "vllm:num_requests_running 0\n"
        self.wanted = len(requests)
        self.all_asked = threading.Event()

    def answered(self):
        if sum("-r" in name for name, _ in self.asked) == self.wanted:
            self.all_asked.set()


def playing(url, requests=REQUESTS, token_seed=1):
    options = {
        "settings": SETTINGS, "token_seed": token_seed, "timeout_s": 900.0, "run_id": "x-",
    }  # fmt: skip
    return partial(replay, Server(url, "tiny"), requests, **options)


def ignore(_outcome):
    pass


def test_requests_are_sent_while_the_process_of_the_controller_is_busy():
    told: list[Outcome] = []
    server = Counting(REQUESTS)

    def busy(outcome):  # from the first request's end until the last has been sent
        assert server.all_asked.wait(60), "clients wait for this process"
        told.append(outcome)

    with serving(server) as fake:
        played = played_apart(playing(fake.url), busy)
    assert [outcome.output_tokens for outcome in played.outcomes] == [3] * len(REQUESTS)
    assert sorted(told, key=lambda outcome: outcome.seq) == played.outcomes


def test_outcomes_and_figures_come_back_whole():
    with serving(FakeOpenAI()) as fake:
        played = played_apart(playing(fake.url), ignore)
    assert [outcome.request_id for outcome in played.outcomes] == ["x-r0", "x-r1", "x-r2", "x-r3"]
    assert played.client["lateness_s"]["max"] >= 0
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_clients(number):
    def interrupt(_outcome):
        os.kill(os.getpid(), number)

    before = signal.signal(number, signal.default_int_handler)
    try:
        with serving(FakeOpenAI()) as fake, pytest.raises(KeyboardInterrupt):
            played_apart(playing(fake.url, offered(0.0, 600.0)), interrupt)
    finally:
        signal.signal(number, before)
    assert multiprocessing.active_children() == []


def test_clients_that_die_are_an_error_not_a_hang():
    def kill(_outcome):
        for each in multiprocessing.active_children():
            each.kill()

    with serving(FakeOpenAI()) as fake, pytest.raises(WorkerError, match="exit code -9"):
        played_apart(playing(fake.url, offered(0.0, 600.0)), kill)
    assert multiprocessing.active_children() == []


def test_clients_that_cannot_go_on_say_why_on_standard_error(capfd):
    with pytest.raises(WorkerError, match="exit code 1"):
        played_apart(playing("http://none", token_seed=-1), ignore)
    assert "ValueError" in capfd.readouterr().err


def test_clients_end_when_their_parent_is_killed():
    with serving(FakeOpenAI()) as fake:
        code = (
            "from evals.live.load_generator import played_apart\n"
            "from tests.evals.live.test_clients import playing\n"
            "from tests.evals.samples import offered\n"
            f"played_apart(playing({fake.url!r}, offered(0.0, 600.0)), print)"
        )
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as parent:
            while not fake.asked:
                time.sleep(0.01)
            clients = psutil.Process(parent.pid).children()
            assert clients
            parent.kill()
    gone, _ = psutil.wait_procs(clients, timeout=15)
    assert sorted(each.pid for each in gone) == sorted(each.pid for each in clients)

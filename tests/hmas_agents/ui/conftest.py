"""The page, served: for a browser to look at it."""

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from starlette.routing import Route

from hmas_agents.ui.ledgers import Ledgers
from hmas_agents.ui.server import bind, build_app, build_server
from prompts.loader import ROOT
from tests.hmas_agents.ui.written_ledger import write_ledger

TOKEN = "of-this-start"
Serve = Callable[..., str]


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A ledger that no test changes."""
    path = tmp_path_factory.mktemp("written") / "ledger.sqlite"
    write_ledger(path)
    return path


@pytest.fixture
def prompts_root(tmp_path):
    """A copy of the prompts that a test may write to."""
    root = tmp_path / "prompts"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("*.py"))
    return root


@pytest.fixture
def serve(prompts_root) -> Iterator[Serve]:
    """Serve ledgers; the page's address."""
    running = []

    def start(*ledgers: Path, more: Sequence[Route] = ()) -> str:
        listener = bind(0)
        port = listener.getsockname()[1]
        app = build_app(Ledgers(list(ledgers)), port, TOKEN, prompts_root, more)
        server = build_server(app)
        thread = threading.Thread(target=server.run, args=([listener],))
        listener.listen()
        thread.start()
        running.append((server, thread, listener))
        return f"http://127.0.0.1:{port}/?token={TOKEN}"

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()

"""The page, served; and a browser to look at it with."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hmas_agents.ui.ledgers import Ledgers
from hmas_agents.ui.server import bind, build_app, build_server
from prompts.loader import ROOT
from tests.hmas_agents.ui.written_ledger import write_ledger

BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # as in the Makefile
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 30_000  # what is waited for comes; a busy machine takes longer
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

    def start(*ledgers: Path) -> str:
        listener = bind(0)
        port = listener.getsockname()[1]
        server = build_server(build_app(Ledgers(list(ledgers)), port, prompts_root))
        thread = threading.Thread(target=server.run, args=([listener],))
        listener.listen()
        thread.start()
        running.append((server, thread, listener))
        return f"http://127.0.0.1:{port}/"

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="package")
def browser():
    """Headless Chromium; without one, a skip that says so, and a failure in CI."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser ({', '.join(BROWSERS)}) is installed: run `make browser`"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A fresh profile's page; an error on its console fails the test that caused it."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield page
    context.close()
    assert errors == []

"""What holds for every test: hypothesis never judges by the clock, and a browser is at hand."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # as in the Makefile
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SERVERS = "tests/real"
PATIENCE_MS = 30_000  # what is waited for comes; a busy machine takes longer


class _FilesAndServers(LoadScopeScheduling):
    """Keeps together, where several run at a time, a file's tests and those of real servers.

    Those of real servers begin, for they take longest; then files with many tests before others.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return SERVERS if file.startswith(f"{SERVERS}/") else file

    def _assign_work_unit(self, node: WorkerController) -> None:
        if SERVERS in self.workqueue:
            self.workqueue.move_to_end(SERVERS, last=False)
        super()._assign_work_unit(node)


def pytest_xdist_make_scheduler(config, log) -> LoadScopeScheduling:
    return _FilesAndServers(config, log)


settings.register_profile("hmas", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hmas")


@pytest.fixture(scope="module")  # while it is there, no other test can run an event loop
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

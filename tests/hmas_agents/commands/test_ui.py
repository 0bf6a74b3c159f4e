"""`hmas ui` says where the page is, and what keeps it from being shown."""

import re
import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from hmas_agents.ui import server
from tests.hmas_agents.ui.written_ledger import write_ledger


@pytest.fixture
def ended(monkeypatch):
    """The server that the command would run, ended by Ctrl-C at once."""

    class Ended:
        def run(self, sockets):
            served.append(sockets[0].getsockname())
            raise KeyboardInterrupt

    served: list[tuple[str, int]] = []
    monkeypatch.setattr(server, "build_server", lambda app: Ended())
    return served


@pytest.fixture
def page(hmas, monkeypatch):
    """Open the page that a command would serve, as its user."""

    def open_page(*argv):
        apps = []
        build = server.build_app
        monkeypatch.setattr(server, "build_app", lambda *a, **k: apps.append(build(*a, **k)))
        url = hmas("ui", "--no-open", *argv)[1].split()[0]
        client = TestClient(apps[0], base_url=url.split("/?")[0])
        assert client.get(url).status_code == 200
        return client

    return open_page


def test_it_prints_the_address_and_ends_with_ctrl_c(hmas, ended, tmp_path):
    write_ledger(tmp_path / "ledger.sqlite")
    code, out, err = hmas("ui", "--ledger", "ledger.sqlite", "--no-open")
    host, port = ended[0]
    assert (code, err) == (0, "")
    assert host == "127.0.0.1"
    assert out.startswith(f"http://127.0.0.1:{port}/?token=")
    again = hmas("ui", "--ledger", "ledger.sqlite", "--no-open")[1]
    assert again.split("token=")[1] != out.split("token=")[1], "each start has its own"


def test_words_are_for_the_engine_and_the_ledger_that_were_named(ended, page, tmp_path):
    (tmp_path / "token").write_text("secret")
    where = ("--ledger", "l.sqlite", "--url", "http://127.0.0.1:9", "--token-file", "token")
    with page(*where) as client:
        told = client.get("/api/told").json()
        assert told == {"told": [], "engine": "http://127.0.0.1:9", "problem": ""}
        origin = {"origin": str(client.base_url)}
        reply = client.post("/api/tell", json={"text": "expect 2x from a"}, headers=origin)
    assert reply.status_code == 503
    assert "http://127.0.0.1:9/hmas/snapshot" in reply.json()["error"]
    assert not (tmp_path / "l.told.sqlite").exists()


def test_words_for_one_of_several_ledgers_are_refused(ended, page, tmp_path):
    for name in ("a", "b"):
        write_ledger(tmp_path / name)
    with page("--ledger", "a", "--ledger", "b") as client:
        assert "words are for one controller" in client.get("/api/told").json()["problem"]


def test_a_ledger_that_is_not_there_yet_is_waited_for(hmas, ended):
    code, _, err = hmas("ui", "--no-open")
    assert code == 0
    assert err == "var/ledger.sqlite: no ledger there yet; `hmas run` writes one\n"
    assert ended


def test_a_file_that_is_no_ledger_is_an_error(hmas, ended, tmp_path):
    (tmp_path / "notes").write_text("not a database" * 100)
    code, _, err = hmas("ui", "--ledger", "notes", "--no-open")
    assert code == 2
    assert "notes: not a usable ledger" in err
    assert not ended


def test_a_damaged_ledger_is_an_error(hmas, ended, tmp_path):
    path = tmp_path / "l.sqlite"
    write_ledger(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    code, _, err = hmas("ui", "--ledger", path, "--no-open")
    assert code == 2
    assert err.startswith(f"hmas ui: {path}: ")
    assert not ended


def test_a_folder_is_no_ledger_that_could_still_come(hmas, ended, tmp_path):
    code, _, err = hmas("ui", "--ledger", tmp_path, "--no-open")
    assert (code, err) == (2, f"hmas ui: {tmp_path}: is a folder; name the ledger in it\n")
    assert not ended


def test_a_port_that_is_taken_is_an_error(hmas, ended):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = hmas("ui", "--port", port, "--no-open")
    assert code == 2
    assert f"--port {port}: 127.0.0.1:{port} cannot be served" in err


@pytest.mark.parametrize(
    ("flag", "desktop", "opened"),
    [("--open", "", 1), ("--no-open", ":0", 0), (None, ":0", 1), (None, "", 0)],
)
def test_the_browser_opens_where_there_is_one(hmas, ended, monkeypatch, flag, desktop, opened):
    asked: list[Path] = []

    def look(url: str) -> None:
        assert "token" not in url, "all users see command lines"
        asked.append(page := Path(url.removeprefix("file://")))
        assert page.parent.stat().st_mode & 0o077 == 0
        assert re.search(r"url=http://127.0.0.1:\d+/\?token=", page.read_text())

    monkeypatch.setattr("webbrowser.open", look)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("DISPLAY", desktop)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    hmas("ui", *([flag] if flag else []))
    assert len(asked) == opened
    assert not any(page.exists() for page in asked), "gone with the server"

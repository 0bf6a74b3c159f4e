"""What the server answers, and to whom; without a browser."""

import re
import sqlite3
from contextlib import contextmanager

import pytest
from starlette.testclient import TestClient

from hmas_agents.ui.ledgers import Ledgers
from hmas_agents.ui.server import PAGE, build_app
from prompts.loader import ROOT, versions
from tests.hmas_agents.ui.conftest import TOKEN
from tests.hmas_agents.ui.written_ledger import HOSTILE_TENANT

PORT = 8400
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def client(written, prompts_root):
    with opened(Ledgers([written]), prompts_root) as client:
        yield client


@contextmanager
def opened(ledgers, prompts_root=ROOT):
    """A browser of the user who opened the printed address."""
    with TestClient(build_app(ledgers, PORT, TOKEN, prompts_root), base_url=URL) as client:
        assert client.get(f"/?token={TOKEN}").status_code == 200
        yield client


@pytest.fixture
def allowed():
    """The headers of a write from the page itself."""
    return {"origin": URL, "content-type": "application/json"}


PATHS = ("/", "/api/runs", "/api/prompts/policy/1", "/page/app.js", "/nowhere")


@pytest.mark.parametrize("cookie", ["", "guess", "é", TOKEN + "x"])
def test_another_user_of_this_machine_sees_and_writes_nothing(client, allowed, cookie):
    """Before, the page handed its write token to whoever asked."""
    client.cookies = {}
    headers = {"cookie": f"hmas-ui-{PORT}={cookie}".encode()} if cookie else {}
    for path in (*PATHS, f"/?token={cookie}"):
        reply = client.get(path, headers=headers)
        assert reply.status_code == 403
        assert TOKEN not in reply.text + str(reply.headers)
    write = {"url": "/api/prompts/policy/check", "json": {"text": "x"}}
    assert client.post(**write, headers={**allowed, **headers}).status_code == 403


def test_the_printed_address_opens_the_page_and_leaves_no_token_behind(client):
    client.cookies = {}
    cookie = client.get(f"/?token={TOKEN}").headers["set-cookie"]
    assert cookie == f"hmas-ui-{PORT}={TOKEN}; HttpOnly; Path=/; SameSite=Strict"
    for path in PATHS[:-1]:
        page = client.get(path)
        assert page.status_code == 200
        assert TOKEN not in page.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", ""])
def test_another_host_is_refused(client, host):
    for path in ("/", "/api/runs", "/page/app.js"):
        reply = client.get(path, headers={"host": host})
        assert reply.status_code == 421
        assert "not this page" in reply.json()["error"]
    assert client.get("/api/runs", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
)
def test_a_write_from_elsewhere_is_refused(client, allowed, prompts_root, changes, status):
    before = versions("policy", prompts_root)
    body = client.get("/api/prompts/policy/1").json()["text"].replace("best first", "worst first")
    write = {"url": "/api/prompts/policy/versions", "json": {"text": body}}
    assert client.post(**write, headers={**allowed, **changes}).status_code == status
    assert versions("policy", prompts_root) == before
    assert client.post(**write, headers=allowed).json() == {"version": before[-1] + 1}


def test_a_write_is_bounded(client, allowed):
    huge = {"text": "x" * 1_100_000}
    assert client.post("/api/prompts/policy/check", json=huge, headers=allowed).status_code == 413


def test_every_answer_forbids_foreign_code(client):
    for path in ("/", "/page/app.js", "/api/runs", "/nowhere"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "require-trusted-types-for 'script'" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_nothing_comes_from_the_network():
    for path in PAGE.iterdir():
        links = re.findall(r"https?://[^\s\"']+", path.read_text())
        assert set(links) <= {"http://www.w3.org/2000/svg"}, path.name


def test_files_beside_the_page_are_out_of_reach(client):
    assert client.get("/page/base.css").status_code == 200
    for path in ("/page/../server.py", "/page/%2e%2e/server.py", "/page//etc/passwd"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/api/runs/0-9",
        "/api/runs/1-1",
        "/api/runs/x",
        "/api/decisions/0-99",
        "/api/compare/0-1/9-1",
    ],
)
def test_what_does_not_exist_is_said_to(client, path):
    reply = client.get(path)
    assert reply.status_code == 404
    assert reply.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("versions", {"text": "no front matter"}, "must open with ---"),
        ("versions", {"words": ""}, "text"),
        ("labels", {"label": "best", "version": 1}, "labels are current and candidate"),
        ("labels", {"label": "candidate", "version": 99}, "version 99 does not exist"),
        ("labels", {"label": "candidate", "version": 0}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_write_says_what_is_wrong(client, allowed, path, body, words):
    reply = client.post(f"/api/prompts/policy/{path}", json=body, headers=allowed)
    assert reply.status_code == 422
    assert words in reply.json()["error"]


def test_a_prompt_outside_the_folder_is_out_of_reach(client):
    for name in ("..", "%2e%2e", "..%2f..", "policy%2f.."):
        assert client.get(f"/api/prompts/{name}/1").status_code in {404, 422}


def test_the_state_of_each_ledger_is_told(written, tmp_path):
    empty, text, other = (tmp_path / name for name in ("empty", "text", "other.sqlite"))
    empty.touch()
    text.write_text("not a database" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (id)")
    paths = [written, tmp_path / "later.sqlite", empty, text, other]
    with opened(Ledgers(paths)) as client:
        pulse = client.get("/api/pulse?run=0-1&run=0-7&run=x").json()
    states = [ledger["state"] for ledger in pulse["ledgers"]]
    assert states == ["ready", "waiting", "waiting", "broken", "broken"]
    assert "not a ledger of H-MAS" in pulse["ledgers"][4]["problem"]
    assert pulse["runs"] == ["0-1", "0-2"]
    assert list(pulse["stamps"]) == ["0-1"]


def test_runs_of_several_ledgers_are_listed_and_compared(written, tmp_path):
    copy = tmp_path / "copy.sqlite"
    with sqlite3.connect(written) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    with opened(Ledgers([written, copy])) as client:
        keys = [run["key"] for run in client.get("/api/runs").json()["runs"]]
        both = client.get("/api/compare/0-1/1-1").json()
    assert keys == ["0-1", "0-2", "1-1", "1-2"]
    assert both["sides"][0]["timeline"] == both["sides"][1]["timeline"]
    assert both["settings"] == []


def test_a_decision_leaves_out_what_only_the_twin_reads(client):
    decision = client.get("/api/decisions/0-4").json()
    assert "situation" not in decision
    assert decision["run"] == "0-1"
    assert decision["state"]["load"] == 1.6
    assert {"key": "policy", "before": "edf", "after": "slide"} in decision["engine"]


def test_decisions_come_in_pages(client, monkeypatch):
    monkeypatch.setattr("hmas_agents.ui.row_list.PAGE_ROWS", 3)
    seen, more, before = [], True, ""
    while more:
        page = client.get(f"/api/runs/0-1/decisions?before={before}").json()
        seen += [row["id"] for row in page["rows"]]
        more, before = page["more"], seen[-1]
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]


def test_bins_are_as_wide_as_asked(client):
    wide = client.get("/api/runs/0-1?bin_s=60").json()["timeline"]
    assert wide["bin_s"] == 60
    assert [sum(series["offered"]) for series in wide["series"]] == [1800, 600, 600, 600]
    assert wide["series"][0]["offered"] == [360] * 5
    assert HOSTILE_TENANT in {series["name"] for series in wide["series"]}

"""`hmas prompts check` renders what is recorded, counts tokens and fails on what is broken."""

import json
from dataclasses import asdict, replace

import pytest

from hmas_agents.commands import prompt_check
from hmas_agents.commands.sample_state import SAMPLE_STATES
from hmas_agents.config import Config
from hmas_agents.ledger import Ledger
from prompts.edit import new_version, set_label
from tests.agents.states import long_state
from tests.hmas_agents.commands.test_prompts import FIRST, SECOND, root  # noqa: F401  a fixture
from tests.hmas_agents.samples import record

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def ledger(tmp_path):
    """Two runs: a calm one and one with a new tenant in each of three decisions."""
    path = tmp_path / "ledger.sqlite"
    for label, states in (("calm", [long_state()]), ("busy", SAMPLE_STATES[:3])):
        book = Ledger(path, label=label, config=Config())
        for state in states:
            book.record_decision(record(state=asdict(state)))
        book.record_decision(record(horizon="short", state={}))
        book.close()
    return path


def rows(out):
    return {(row["name"], row["version"]): row for row in json.loads(out)}


def test_ours_pass_with_the_built_in_situations(hmas, monkeypatch):
    code, out, _ = hmas("prompts", "check", "--json")
    assert code == 0
    row = rows(out)["policy", 1]
    assert row["situations"] == len(SAMPLE_STATES)
    assert 0 < row["summary_tokens"] < row["tokens"]
    assert row["counted_by"]
    _, out, _ = hmas("prompts", "check")
    assert "rendered with 4 built-in situations" in out
    assert "ok    policy v1 (current): up to" in out


def test_recorded_situations_are_rendered_instead(hmas, ledger):
    code, out, _ = hmas("prompts", "check", "--ledger", ledger, "--json")
    assert (code, rows(out)["policy", 1]["situations"]) == (0, 4)
    _, out, _ = hmas("prompts", "check", "--ledger", ledger, "--run", 2, "--json")
    assert rows(out)["policy", 1]["situations"] == 3
    assert f"4 situations of {ledger}" in hmas("prompts", "check", "--ledger", ledger)[1]


def test_the_ledger_of_the_configuration_is_read_where_there_is_one(hmas, ledger, tmp_path):
    (tmp_path / "hmas.toml").write_text(f'[ledger]\npath = "{ledger}"\n')
    assert "4 situations of" in hmas("prompts", "check")[1]


def test_situations_of_an_older_form_are_left_out_and_counted(hmas, ledger):
    book = Ledger(ledger, label="old", config=Config())
    book.record_decision(record(state={"policy": "edf", "load": 1.3}))
    book.close()
    assert "(1 of an older form left out)" in hmas("prompts", "check", "--ledger", ledger)[1]
    code, _, err = hmas("prompts", "check", "--ledger", ledger, "--run", 3)
    assert code == 2
    assert "holds no situation of run 3" in err
    assert hmas("prompts", "check", "--ledger", "nowhere.sqlite")[0] == 2


def test_a_variable_that_nobody_fills_in_fails(hmas, root):  # noqa: F811
    text = SECOND.replace("version: 1\n", "version: 2\n", 1)
    text = text.replace("variables: [", "variables: [weather, ") + "\nIt is $weather.\n"
    (root / "policy" / "v2.md").write_text(text)
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "'weather' is filled in by nobody" in out
    assert "ok    policy v1" in out


def test_an_edit_of_a_published_version_fails(hmas, root):  # noqa: F811
    (root / "policy" / "v1.md").write_text(SECOND)
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "v1.md was edited after it was published: make a new version" in out


def test_a_published_version_that_is_gone_fails(hmas, root):  # noqa: F811
    new_version("policy", SECOND, root)
    (root / "policy" / "v2.md").unlink()
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "policy/v2.md: was published and is gone" in out


def test_a_label_without_a_version_fails(hmas, root):  # noqa: F811
    (root / "labels.toml").write_text("[policy]\ncurrent = 99\n")
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "current = 99: no such version" in out


def test_a_draft_is_noted_and_fails_once_a_label_means_it(hmas, root):  # noqa: F811
    (root / "policy" / "v2.md").write_text(SECOND.replace("version: 1\n", "version: 2\n", 1))
    code, out, _ = hmas("prompts", "check")
    assert code == 0
    assert "note  policy v2: a draft" in out
    (root / "labels.toml").write_text("[policy]\ncurrent = 2\n")
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "fail  a draft" in out


def test_an_old_version_that_nobody_uses_may_be_of_an_older_reply_schema(hmas, root):  # noqa: F811
    number = new_version("policy", FIRST.replace("schema_version: 1", "schema_version: 7"), root)
    code, out, _ = hmas("prompts", "check")
    assert code == 0
    assert "got 7" in out
    set_label("policy", "candidate", number, root)
    assert hmas("prompts", "check")[0] == 1


def test_a_summary_over_600_tokens_fails(hmas, monkeypatch):
    monkeypatch.setattr(prompt_check, "summarise", lambda state: "word " * 601)
    code, out, _ = hmas("prompts", "check")
    assert code == 1
    assert "over 600" in out


def test_tokens_are_counted_by_the_server_that_is_named(hmas, server):
    server.routes["/tokenize"] = (200, {"count": 321, "max_model_len": 4096, "tokens": []})
    code, out, _ = hmas("prompts", "check", "--model-url", f"{server.url}/v1", "--json")
    assert code == 0
    row = rows(out)["policy", 1]
    assert (row["tokens"], row["summary_tokens"]) == (321, 321)
    assert server.url in row["counted_by"]
    asked = [body for body in server.posted if "messages" in body]
    assert asked
    assert all(body["add_generation_prompt"] for body in asked)


def test_a_prompt_that_the_model_has_no_room_for_fails(hmas, server):
    server.routes["/tokenize"] = (200, {"count": 321, "max_model_len": 512, "tokens": []})
    code, out, _ = hmas("prompts", "check", "--model-url", server.url)
    assert code == 1
    assert "521 tokens with the reply do not fit the model's 512" in out


@pytest.mark.parametrize("route", [(404, {}), (200, {"tokens": []}), (200, [])])
def test_a_server_that_does_not_count_is_an_error(hmas, server, route):
    server.routes["/tokenize"] = route
    code, _, err = hmas("prompts", "check", "--model-url", server.url)
    assert code == 1
    assert f"--model-url {server.url}/tokenize" in err


def test_distinct_situations_are_counted_once(hmas, server, tmp_path):
    server.routes["/tokenize"] = (200, {"count": 1, "max_model_len": 4096, "tokens": []})
    book = Ledger(tmp_path / "same.sqlite", label="", config=Config())
    for at_s in range(20):
        book.record_decision(record(state=asdict(replace(long_state(), now_s=float(at_s)))))
    book.close()
    hmas("prompts", "check", "--ledger", book.path, "--model-url", server.url)
    assert len(server.posted) == 2

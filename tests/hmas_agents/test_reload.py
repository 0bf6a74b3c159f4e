"""Edits reach a running loop; a broken one leaves the last good and is told once."""

import logging
import os
import shutil

import pytest

from hmas_agents.reload import ReloadedPrompt, ReloadedTools
from prompts.edit import new_version, set_label
from prompts.loader import ROOT, PromptError
from tests.fakes import FakeEngine
from tests.tools.test_folder import GOOD, path, write  # noqa: F401  a fixture
from tools import ControlSession, ToolError, ToolResult

TEXT = (ROOT / "policy" / "v1.md").read_text()
CURRENT = "[policy]\ncurrent = 1\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "policy").mkdir()
    shutil.copyfile(ROOT / "policy" / "v1.md", tmp_path / "policy" / "v1.md")
    (tmp_path / "labels.toml").write_text(CURRENT)
    return tmp_path


def second(root):
    return new_version("policy", TEXT.replace("twelve", "eight"), root)


def test_the_same_prompt_is_given_while_nothing_changes(root):
    reloaded = ReloadedPrompt("policy", "current", root)
    assert reloaded.current() is reloaded.current()
    assert (reloaded.problem, reloaded.faults) == ("", [])


def test_a_label_that_moves_is_followed(root):
    reloaded = ReloadedPrompt("policy", "current", root)
    set_label("policy", "current", second(root), root)
    assert reloaded.current().head.version == 2
    assert "eight" in reloaded.current().system


def test_a_draft_that_is_edited_is_taken_up(root):
    reloaded = ReloadedPrompt("policy", "1", root)
    (root / "policy" / "v1.md").write_text(TEXT.replace("twelve", "nine"))
    assert "nine" in reloaded.current().system


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("policy/v1.md", TEXT.replace("$summary", "$weather"), r"\$weather: not among"),
        ("policy/v1.md", TEXT.replace("schema_version: 1", "schema_version: 9"), "of version 1"),
        ("policy/v1.md", "", "front matter"),
        ("labels.toml", "[policy]\ncurrent = 7\n", "version 7 does not exist"),
        ("labels.toml", "[policy", "labels.toml:1"),
        ("labels.toml", "", "no such label"),
        ("versions.lock", f"{'0' * 64}  policy/v1.md\n", "edited after it was published"),
    ],
)
def test_a_broken_edit_leaves_the_last_good_one_and_is_told_once(root, caplog, file, text, said):
    reloaded = ReloadedPrompt("policy", "current", root)
    good = reloaded.current()
    before = (root / file).read_text() if (root / file).exists() else None
    (root / file).write_text(text)
    with caplog.at_level(logging.WARNING):
        assert [reloaded.current() for _ in range(3)] == [good] * 3
        (root / file).touch()
        assert reloaded.current() is good
    assert len(caplog.messages) == 1
    with pytest.raises(PromptError, match=said):
        raise PromptError(reloaded.problem)
    assert reloaded.faults == [f"prompt_broken: {reloaded.problem}"]
    if before is None:
        (root / file).unlink()
    else:
        (root / file).write_text(before)
    assert reloaded.current() == good
    assert reloaded.faults == []


def test_a_version_that_is_missing_is_taken_up_when_it_turns_up(root):
    reloaded = ReloadedPrompt("policy", "current", root)
    (root / "labels.toml").write_text("[policy]\ncurrent = 2\n")
    assert reloaded.current().head.version == 1
    (root / "policy" / "v2.md").write_text(TEXT.replace("version: 1", "version: 2", 1))
    assert reloaded.current().head.version == 2


def test_a_loop_does_not_start_with_a_broken_prompt(root):
    (root / "policy" / "v1.md").write_text("")
    with pytest.raises(PromptError, match="front matter"):
        ReloadedPrompt("policy", "current", root)


def session(engine=None):
    return ControlSession(engine or FakeEngine(), "me", 10.0, False)


def test_the_same_tools_are_given_while_nothing_changes():
    reloaded = ReloadedTools(session())
    assert "switch_policy" in reloaded.current()
    assert reloaded.current() is reloaded.current()
    assert (reloaded.problem, reloaded.faults) == ("", [])


def test_a_new_tool_writes_through_the_session_and_an_edit_changes_what_it_does(path):  # noqa: F811
    engine = FakeEngine()
    reloaded = ReloadedTools(session(engine), path.parent)
    assert reloaded.current() == {}
    write(path, GOOD)
    args = {"share": 0.1, "reason": "test"}
    answer = reloaded.current()["set_test_share"].invoke(args)
    assert ToolResult.model_validate_json(answer).accepted
    assert engine.limits.prefill_share == 0.1
    write(path, GOOD.replace("min(share, MOST)", "share / 2"))
    reloaded.current()["set_test_share"].invoke(args)
    assert engine.limits.prefill_share == 0.05


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_an_edit_that_others_could_have_made_is_not_run(path, mode):  # noqa: F811
    write(path, GOOD)
    reloaded = ReloadedTools(session(), path.parent)
    good = reloaded.current()
    write(path, GOOD.replace("MOST = ", "MOST = 0 * "))
    path.chmod(mode)
    assert reloaded.current() is good
    assert f"set_test_share.py:1: is not reloaded: others may write it (mode {mode:o})" in (
        reloaded.problem
    )
    path.chmod(0o644)
    assert reloaded.current() is not good
    assert reloaded.problem == ""


def test_an_edit_of_another_users_file_is_not_run(path, monkeypatch):  # noqa: F811
    write(path, GOOD)
    reloaded = ReloadedTools(session(), path.parent)
    good = reloaded.current()
    write(path, GOOD.replace("MOST = ", "MOST = 0 * "))
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert reloaded.current() is good
    assert "belongs to another user" in reloaded.problem


def test_reloading_can_be_switched_off(path):  # noqa: F811
    write(path, GOOD)
    reloaded = ReloadedTools(session(), path.parent, reload=False)
    good = reloaded.current()
    write(path, GOOD.replace("MOST = ", "MOST = 0 * "))
    assert reloaded.current() is good
    assert reloaded.faults == []


def test_a_broken_tool_leaves_the_last_good_one_and_is_told_once(path, caplog):  # noqa: F811
    write(path, GOOD)
    engine = FakeEngine()
    reloaded = ReloadedTools(session(engine), path.parent)
    good = reloaded.current()
    write(path, GOOD.replace("share, MOST", "share, MOST("))
    with caplog.at_level(logging.WARNING):
        assert [reloaded.current() is good for _ in range(3)] == [True] * 3
    assert len(caplog.messages) == 1
    assert reloaded.faults == [f"tool_broken: {reloaded.problem}"]
    assert "set_test_share.py:17: SyntaxError" in reloaded.problem
    answer = good["set_test_share"].invoke({"share": 0.1, "reason": "test"})
    assert ToolResult.model_validate_json(answer).accepted


def test_a_tool_that_did_not_change_stays_the_same_object(path):  # noqa: F811
    write(path, GOOD)
    reloaded = ReloadedTools(session(), path.parent)
    before = reloaded.current()["set_test_share"]
    other = path.with_name("set_test_other.py")
    write(other, GOOD.replace("set_test_share", "set_test_other"))
    assert list(reloaded.current()) == ["set_test_other", "set_test_share"]
    assert reloaded.current()["set_test_share"] is before


def test_a_loop_does_not_start_with_a_broken_tool(path):  # noqa: F811
    write(path, "import")
    with pytest.raises(ToolError, match=r"set_test_share.py:1: SyntaxError"):
        ReloadedTools(session(), path.parent)
